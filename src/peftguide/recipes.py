"""The minimal recipes: the configurations of ``data/recipes``, each with the same few steps behind it."""

import ast
import re

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
from peftmemory.configs import read_sheet

START, END = "# --- configuration\n", "# --- end of configuration\n"
# What a configuration says on the three roles; the recipes themselves are written for decoders.
TASK_TYPES = {"decoder": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "SEQ_CLS"}
QUERY_VALUE = {"roberta": '["query", "value"]', "t5": '["q", "v"]'}
NORMS = {"roberta": '["LayerNorm"]'}

# The environment as it is today; ``adapters`` replaced ``adapter-transformers`` and stays on
# transformers 4: give it an environment of its own.
INSTALL = (
    "pip install transformers peft trl datasets accelerate",
    "pip install bitsandbytes            # QLoRA and 8-bit AdamW",
    "pip install adapters                # AdapterHub's library; apart: it pins transformers 4",
)


def recipe(method: str) -> str:
    """Return a method's recipe as text, to copy and run: its configuration in ``train.txt``.

    Raises:
        UserError: there is none of that name.
    """
    folder = data_dir() / "recipes"
    if not (path := folder / f"{method}.py").is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.py")))
        raise UserError(f"There is no recipe {method!r}: take one of {known}.")
    heading, own, cell = path.read_text().split("\n\n", 2)
    imports, rest = (folder / "train.txt").read_text().replace("METHOD", method).split("\n\n", 1)
    heading = heading.replace('."""', ': train a few steps, save, reload, ask."""')
    return f"{heading}\n\n{merged(imports, own)}\n\n{rest.replace(START, START + cell)}"


def merged(imports: str, own: str) -> str:
    """Return import lines with those of ``own`` among them, one line a module."""
    lines = imports.splitlines()
    for line in own.splitlines():
        module, _, names = line.partition(" import ")
        same = [at for at, known in enumerate(lines) if known.startswith(f"{module} import ")]
        if same and names:
            known = lines[same[0]].partition(" import ")[2]
            together = sorted({*known.split(", "), *names.split(", ")})
            lines[same[0]] = f"{module} import {', '.join(together)}"
        elif line not in lines:
            lines.append(line)
    return "\n".join(lines)


def configuration(method: str, model: str | None = None, role: str = "decoder") -> str:
    """Return a recipe's configuration with the imports it needs.

    Args:
        method: a key of ``methods.LABELS``.
        model: a name of ``peftmemory`` to write into it instead of the kitchen decoder.
        role: ``decoder``, ``seq2seq`` or ``encoder``: what the model is used as.
    """
    whole = recipe(method)
    cell = whole.split(START)[1].split(END)[0]
    cell = cell.replace("CAUSAL_LM", TASK_TYPES[role])
    if model:
        sheet = read_sheet(model)
        cell = re.sub(r"MODEL = .*", f'MODEL = "{sheet["source"]}"', cell)
        family = sheet["config"]["model_type"]
        cell = cell.replace('["q_proj", "v_proj"]', QUERY_VALUE.get(family, '["q_proj", "v_proj"]'))
        if method == "ln" and family in NORMS:
            cell = cell.replace('")\n', f'", target_modules={NORMS[family]})\n', 1)
    return f"{imports(whole, cell)}\n{cell}".lstrip("\n")


def imports(whole: str, cell: str) -> str:
    """Return the imports of ``whole`` whose names ``cell`` uses."""
    used = {node.id for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)}
    lines = []
    for node in ast.parse(whole).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [alias for alias in node.names if alias.name in used]
            lines += [ast.unparse(node) + "\n"] if node.names else []
    return "".join(lines)
