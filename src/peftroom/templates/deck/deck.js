// Deals a section's contents out to slides of 1280 by 720, so that nothing overflows, then starts reveal.js.
(function () {
  const root = document.querySelector(".reveal"), ROWS = 15;
  const over = (slide) => slide.scrollHeight > 720 || slide.scrollWidth > 1280;
  const wide = (part, slide) => part.getBoundingClientRect().right > slide.getBoundingClientRect().right - 56;

  // What a slide holds: wrappers are opened, so that a page can end between their parts.
  function parts(slide) {
    for (const each of slide.querySelectorAll(".highlight, .output.html, .output.html > div")) {
      if (each.matches(".highlight") || !each.querySelector("svg, canvas")) {
        if (each.matches(".highlight")) each.querySelector("pre").classList.add("highlight", "code");
        each.replaceWith(...[...each.childNodes].filter((one) => one.nodeName !== "STYLE" && (one.nodeType === 1 || one.data?.trim())));
      }
    }
    return [...slide.childNodes].filter((one) => one.nodeType === 1 || one.data?.trim());
  }
  // A table whose columns go beyond the slide, as several: the first column stands in each.
  function columns(table, slide) {
    const rows = [...table.rows], count = Math.max(...rows.map((row) => row.cells.length));
    if (!wide(table, slide) || count < 3 || rows.some((row) => [...row.cells].some((cell) => cell.colSpan > 1))) return null;
    const half = 1 + Math.ceil((count - 1) / 2);
    return [[1, half], [half, count]].map(([from, to]) => {
      const copy = table.cloneNode(true);
      for (const row of copy.rows)
        [...row.cells].forEach((cell, at) => at && (at < from || at >= to) && cell.remove());
      return copy;
    });
  }
  // A part that is too long alone, as two: a table by rows, with its head again; a text by lines; a list by items.
  function halves(part, fits) {
    const body = part.tBodies?.[0];
    const items = body ? [...body.rows] : part.matches("ul, ol") ? [...part.children] : null;
    if (items && items.length > 1) {
      const rest = part.cloneNode(true), late = rest.tBodies ? [...rest.tBodies[0].rows] : [...rest.children];
      let keep = items.length;
      while (keep > 1 && !fits()) items[--keep].remove();
      late.slice(0, keep).forEach((one) => one.remove());
      if (part.matches("ol")) rest.start = (part.start || 1) + keep;
      return rest;
    }
    if (part.matches("pre")) {
      const lines = part.innerHTML.trimEnd().split("\n"), rest = part.cloneNode(false);
      let keep = Math.min(lines.length, ROWS);
      do part.innerHTML = lines.slice(0, keep).join("\n"); while (!fits() && --keep > 0);
      rest.innerHTML = lines.slice(keep).join("\n");
      return keep < lines.length ? rest : null;
    }
    const text = [...part.childNodes], rest = part.cloneNode(false);
    while (text.length > 1 && !fits()) rest.prepend(text.pop());
    return rest.childNodes.length ? rest : null;
  }
  function deal(slide) {
    const notes = [...slide.querySelectorAll("aside.notes")];
    const waiting = parts(slide).filter((one) => !notes.includes(one));
    const title = waiting[0]?.matches?.("h1, h2, h3, h4") ? waiting.shift() : null;
    let page = slide, held = 0;
    page.replaceChildren(...(title ? [title] : []));
    const turn = () => {
      const next = document.createElement("section");
      page.after(next);
      page = next;
      held = 0;
    };
    while (waiting.length) {
      const part = waiting.shift();
      page.append(part);
      const split = part.matches?.("table") && columns(part, page);
      if (split) { part.remove(); waiting.unshift(...split); continue; }
      const long = part.matches?.("pre") && part.textContent.trimEnd().split("\n").length > ROWS;
      if (!over(page) && !long) { held += 1; continue; }
      if (held || (title && page === slide && over(page))) { part.remove(); waiting.unshift(part); turn(); continue; }
      const rest = part.nodeType === 1 && halves(part, () => !over(page));
      if (rest) waiting.unshift(rest);
      held += 1;
    }
    if (!page.childNodes.length && page !== slide) page.remove();
    slide.append(...notes);
  }
  function name(slides) {
    // A page without a heading of its own says whose it is.
    let title = "";
    for (const slide of slides) {
      const own = slide.querySelector("h1, h2, h3, h4");
      if (own) title = own.textContent;
      slide.setAttribute("aria-label", title);
    }
  }
  window.deckReady = (async () => {
    await MathJax.startup.promise;
    for (const notes of root.querySelectorAll(".notes")) notes.hidden = true;
    root.classList.add("measured");
    await MathJax.typesetPromise();
    await Promise.all([...document.images].map((one) => one.decode().catch(() => null)));
    for (const slide of [...root.querySelectorAll("section")].filter((one) => !one.querySelector("section"))) deal(slide);
    name([...root.querySelectorAll("section")].filter((one) => !one.querySelector("section")));
    root.classList.remove("measured");
    await Reveal.initialize({ width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: true, transition: "none", plugins: [RevealNotes] });
  })();
})();
