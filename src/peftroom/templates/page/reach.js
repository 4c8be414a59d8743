// What is wider than its place can be scrolled with the keyboard too.
addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(() => {
  for (const each of document.querySelectorAll("mjx-container, main table, main pre, .output, .cell_output div"))
    if (each.scrollWidth > each.clientWidth && getComputedStyle(each).overflowX !== "visible") each.tabIndex = 0;
}));
