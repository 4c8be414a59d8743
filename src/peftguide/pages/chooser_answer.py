"""What the method chooser shows: an answer of the guide as HTML; no widget, no kernel."""

import html
from typing import Any

import peftguide
from pefthelpers.errors import UserError
from peftmemory.errors import EstimateError

# Selects the cell's text and copies it: works from a file, offline, without any permission.
COPY = (
    "const p=this.parentNode.querySelector('pre'),r=document.createRange(),s=getSelection();"
    "r.selectNodeContents(p);s.removeAllRanges();s.addRange(r);"
    "this.textContent=document.execCommand('copy')?'copied':'press Ctrl+C'"
)
STYLE = (
    "<style>.widget-html-content{min-width:0}.chooser{font-family:sans-serif;font-size:14px;line-height:1.4;max-width:860px;"
    "color:#111;background:#fff}.chooser ul{margin:4px 0 10px;padding-left:20px}"
    ".chooser li{margin:2px 0}.chooser h4{margin:12px 0 2px;font:bold 14px sans-serif}"
    ".chooser pre{background:#f3f5f7;color:#111;border:1px solid #888;padding:8px;margin:4px 0;"
    "overflow-x:auto;font:13px monospace;white-space:pre}.chooser .wide{overflow-x:auto}"
    ".chooser table{border-collapse:collapse;font-size:13px;margin:4px 0}"
    ".chooser th,.chooser td{padding:2px 9px;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid #ccc}.chooser th:first-child,.chooser td:first-child,"
    ".chooser td:last-child{text-align:left}.chooser .method{font-size:18px;font-weight:bold;"
    "border-left:6px solid #0072B2;padding-left:8px;margin:6px 0}"
    ".chooser button{font-size:13px;padding:4px 10px}</style>"
)
HEADS = ("method", "mean ± 95 %", "seeds", "learning rate", "file", "compared")


def answer(choices: dict[str, Any]) -> str:
    """Return the answer to the chooser's controls as HTML; a sentence if it has none.

    Args:
        choices: task, model, card_gib, tasks, latency and tooling.
    """
    try:
        return as_html(peftguide.choose(**choices))
    except (UserError, EstimateError) as error:
        return f'<p class="chooser-refusal" role="alert">{html.escape(str(error))}</p>'


def as_html(choice: peftguide.Choice) -> str:
    """Return a choice as HTML: method, why, rows, cell, what was ruled out."""
    others = "".join(items(f"{a}: {reason}" for a, reason in choice.alternatives.items()))
    return (
        f'{STYLE}<div class="chooser chooser-answer" data-method="{choice.method or ""}">'
        f'<p class="method">{html.escape(choice.label)}</p><ul>{"".join(items(choice.why))}</ul>'
        f"{cell(choice.configuration)}<h4>The rows it rests on</h4>"
        f'<div class="wide" tabindex="0"><table><tr>{head()}</tr>{"".join(rows(choice))}</table>'
        f"</div><h4>Ruled out</h4><ul>{others}</ul></div>"
    )


def items(sentences) -> list[str]:
    """Return sentences as items of a list."""
    return [f"<li>{html.escape(sentence)}</li>" for sentence in sentences]


def head() -> str:
    """Return the heads of the table's columns."""
    return "".join(f'<th scope="col">{word}</th>' for word in HEADS)


def rows(choice: peftguide.Choice) -> list[str]:
    """Return the supporting rows as rows of a table."""
    whole = lambda row: "<tr>" + "".join(f"<td>{value}</td>" for value in row) + "</tr>"
    return [whole(row) for row in cells(choice)]


def cells(choice: peftguide.Choice) -> list[tuple[str, ...]]:
    """Return the cells of the supporting rows, under ``HEADS``."""
    from peftguide.words import VERDICTS, score, size
    from pefthelpers.methods import LABELS

    found = []
    for method, label in LABELS.items():
        if not (arm := choice.arms.get(method)):
            continue
        verdict = choice.verdicts.get(method)
        word = VERDICTS[verdict.word] if verdict else "ruled out before"
        rate, file = f"{arm.learning_rate:g}", size(arm.file_bytes)
        found.append((label, score(arm), str(len(arm.test)), rate, file, word))
    return found


def cell(configuration: str) -> str:
    """Return the cell to copy with its button; nothing where there is none."""
    if not configuration:
        return ""
    return (
        '<h4>The configuration</h4><div class="cell"><pre tabindex="0">'
        f'{html.escape(configuration)}</pre><button type="button" onclick="{COPY}">copy</button>'
        "</div>"
    )
