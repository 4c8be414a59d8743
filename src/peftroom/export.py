"""One page of a notebook that needs no other file: figures, formulas, quiz and calculator inside."""

from pathlib import Path

from pefthelpers.paths import atomic_path
from peftroom import prepared


def build(paths: list[Path], out: Path) -> list[Path]:
    """Write a page of each notebook into a folder; return the pages.

    Links to other files of the collection lead to its repository, as the page may travel alone.
    """
    script = prepared.mathjax().read_text(encoding="utf-8").replace("</script", "<\\/script")
    made = []
    for path in paths:
        ready = prepared.notebook(path, prepared.leads(path, {}))
        page = prepared.convert(ready, "page", mathjax_script=script)
        with atomic_path(out / f"{path.stem}.html") as file:
            file.write_text(page, encoding="utf-8")
        made.append(out / f"{path.stem}.html")
    return made
