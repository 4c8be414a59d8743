"""The learner's kitchen: tasks from stored pools, or one sentence."""

import shutil
import subprocess
import sys

import pytest

from pefthelpers import kitchen
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (kitchen.elicit, [612, 198, 360]),
        (kitchen.learn, [192, 144, 240]),
        (kitchen.summaries, [400, 150, 300]),
    ],
)
def test_splits_have_the_stated_sizes_share_no_prompt_and_hang_on_the_seed(make, sizes):
    task = make(2)
    assert [len(split) for split in task[1:]] == sizes
    train, validation, test = ({e.prompt for e in split} for split in task[1:])
    assert not (train & validation or train & test or validation & test)
    assert task == make(2) != make(1)


def test_retention_is_new_at_every_call():
    first = kitchen.retention()
    first.pop("documents")
    first["facts"].clear()
    assert len(kitchen.retention()["facts"]) == 390 and "documents" in kitchen.retention()


@pytest.mark.parametrize("seed", [3, -1, "all"])
def test_summaries_of_another_seed_are_refused_in_one_sentence(seed):
    with pytest.raises(UserError, match=r"stored for the seeds 0, 1 and 2.*kitchen_world") as error:
        kitchen.summaries(seed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (kitchen.elicit, "elicit.jsonl"),
        (kitchen.learn, "learn.jsonl"),
        (kitchen.retention, "retention.jsonl"),
        (kitchen.summaries, "summaries.jsonl.gz"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "other fields"])
def test_a_damaged_pool_ends_in_one_sentence(make, name, damage, tmp_path, monkeypatch):
    folder = tmp_path / "kitchen" / "pools"
    shutil.copytree(data_dir() / "kitchen" / "pools", folder)
    monkeypatch.setattr(kitchen, "data_dir", lambda: tmp_path)
    path, content = folder / name, (folder / name).read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content[:500] + b"\xff\xfe" + content[502:])
    elif damage == "other fields" and path.suffix != ".gz":
        path.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match=f"{name}.*git checkout") as error:
        make()
    assert "\n" not in str(error.value)


def test_importing_the_kitchen_imports_no_torch():
    code = "import sys, pefthelpers.kitchen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
