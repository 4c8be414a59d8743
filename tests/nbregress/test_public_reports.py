"""What people reported of notebooks (issue 17, cases 18 and 19): two more of each kind.

The reported ones are in ``test_found_in_the_wild.py``. Cases 16 and 17, AdapterHub's files, are in
``tests/peftbottleneck/test_adapterhub_wild.py``.
"""

import json

import pytest

from nbregress import lint, notebooks, plan


@pytest.mark.parametrize(
    ("source", "known"),
    [
        (
            "rate: float = 1e-4  # of the schedule\nsizes: dict[str, int] = {'r': 8}",
            (1e-4, {"r": 8}),
        ),
        (
            '"""Knobs."""\nfrom typing import Final\nrate: Final = 0.5\nsizes: list[int] = [1]',
            (0.5, [1]),
        ),
    ],
)
def test_annotated_parameters_are_seen(make_notebook, source, known):
    notebook = notebooks.read(make_notebook("print(rate, sizes)", parameters=source))
    found = notebooks.parameters(notebook)
    assert (found["rate"], found["sizes"]) == known


def test_an_annotated_parameter_that_a_later_cell_sets_again_is_found(make_notebook):
    notebook = notebooks.read(make_notebook("SEED: int = 3", parameters="SEED: int = 0"))
    with pytest.raises(Exception, match="SEED"):
        plan.check_lasting("x", notebook, {"SEED": 1})


@pytest.mark.parametrize(
    "magic",
    ["%%html\n<b>if (", "%%writefile loop.py\nfor x in (", "%%sql\nSELECT * FROM t WHERE 1;"],
)
def test_a_cell_in_another_language_is_passed_over(make_notebook, magic):
    assert not [said for said in lint.problems(make_notebook(magic)) if "Python" in said]


@pytest.mark.parametrize(
    "cells",
    [
        [{"cell_type": "raw", "id": "a", "metadata": {}, "source": "x"}],
        [
            {
                "cell_type": "code",
                "id": "a",
                "metadata": {},
                "source": "",
                "outputs": [],
                "execution_count": None,
            }
        ],
    ],
)
def test_a_notebook_of_almost_nothing_is_linted(cells, run, tmp_path):
    path = tmp_path / "blank.ipynb"
    whole = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(whole))
    code, text = run(path, command="lint")
    assert code == 1 and "blank.ipynb: " in text
