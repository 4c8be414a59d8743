"""Records: read whole or refused in one sentence, looked up step by step, written whole or not at all."""

import json

import pytest

from pefthelpers import results
from pefthelpers.errors import UserError

ROWS = [
    {"task": "learn", "r": 4, "replay": False, "test": 0.5},
    {"task": "learn", "r": 4, "replay": True, "test": 1.0},
    {"task": "elicit", "r": 16, "replay": False, "test": 0.25},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Point the records at an empty folder, and return a function that puts one there."""
    monkeypatch.setattr(results, "data_dir", lambda: tmp_path)
    results._referred.cache_clear()

    def put(name, content, where="results"):
        path = tmp_path / where / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    yield put
    results._referred.cache_clear()


@pytest.mark.parametrize("read", [results.read, results.rows, results.path_of])
def test_a_missing_record_is_named(folder, read):
    folder("other", {"rows": []})
    with pytest.raises(UserError, match="Nothing is recorded as 'lora_study': see .*data/results"):
        read("lora_study")


@pytest.mark.parametrize("content", ['{"rows": [', "", '{"rows": [1,]}'])
def test_a_damaged_record_is_named(folder, content):
    path = folder("lora_study", content)
    for name in ("lora_study", path):
        with pytest.raises(UserError, match=r"lora_study\.json is damaged.*git checkout") as error:
            results.read(name)
        assert "\n" not in str(error.value)


def test_a_record_that_is_no_text_is_damaged(folder):
    folder("lora_study", "").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="damaged"):
        results.read("lora_study")


@pytest.mark.parametrize("content", [[1, 2], {"metrics": {}}, {"rows": 3}])
def test_a_record_without_rows_is_refused_as_a_table(folder, content):
    folder("lora_study", content)
    with pytest.raises(UserError, match=r"lora_study\.json.*no rows"):
        results.rows("lora_study")


def test_rows_are_a_table_and_baselines_come_first(folder):
    folder("lora_study", {"rows": ROWS})
    assert results.rows("lora_study")["test"].tolist() == [0.5, 1.0, 0.25]
    folder("lora_study", {"rows": ROWS[:1]}, where="baselines")
    assert len(results.rows("lora_study")) == 1


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("lora_study/rows/task=learn/test", 0.75),
        ("lora_study/rows/task=learn/replay=true/test", 1.0),
        ("lora_study/rows/r=16/test", 0.25),
        ("lora_study/rows/2/test", 0.25),
        ("lora_study/about/processor", "a"),
        ("02_lora/growth", 2.5),
    ],
)
def test_a_reference_is_followed_step_by_step(folder, reference, value):
    folder("lora_study", {"about": {"processor": "a"}, "rows": ROWS})
    folder("02_lora.tiny", {"metrics": {"growth": {"value": 2.5}}}, where="baselines")
    assert results.look_up(reference) == value


@pytest.mark.parametrize(
    "reference",
    [
        "nowhere/rows/0",
        "lora_study/columns",
        "lora_study/rows/9/test",
        "lora_study/rows/task=sing/test",
        "lora_study/rows/task=learn/accuracy",
        "lora_study/rows/0/test/deeper",
        "02_lora/shrinkage",
    ],
)
def test_a_reference_to_nothing_is_refused(folder, reference):
    folder("lora_study", {"rows": ROWS})
    folder("02_lora.tiny", {"metrics": {"growth": {"value": 2.5}}}, where="baselines")
    with pytest.raises(UserError, match="which is not recorded"):
        results.look_up(reference)


def test_what_is_written_is_read_and_each_row_is_a_line(tmp_path):
    path = tmp_path / "new" / "study.json"
    results.write(path, {"about": {"date": "today"}, "rows": ROWS})
    assert results.read(path) == {"about": {"date": "today"}, "rows": ROWS}
    lines = path.read_text().splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[2:-1]] == ROWS
    assert lines[-1] == "]}"
    results.write(path, {"rows": []})
    assert results.read(path) == {"rows": []}


def test_a_record_of_other_form_is_written_indented(tmp_path):
    path = tmp_path / "memory.json"
    results.write(path, {"claims": {"1": "größer"}})
    assert results.read(path) == {"claims": {"1": "größer"}}
    assert "größer" in path.read_text(encoding="utf-8")


def test_a_write_that_fails_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "study.json"
    results.write(path, {"rows": ROWS[:1]})
    with pytest.raises(TypeError):
        results.write(path, {"rows": [*ROWS, {"test": object()}]})

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UserError, match="No space"):
        results.write(path, {"rows": ROWS})
    assert json.loads(path.read_text())["rows"] == ROWS[:1]
    assert [file.name for file in tmp_path.iterdir()] == ["study.json"]


def test_committed_studies_are_in_the_form_that_write_gives(tmp_path):
    for name in ("kitchen_gates", "lora_study", "prefix_study", "sweep_decoder"):
        results.write(tmp_path / "again.json", results.read(name))
        assert (tmp_path / "again.json").read_bytes() == results.path_of(name).read_bytes(), name


def test_of_rates_that_validation_cannot_tell_apart_the_lowest_is_taken():
    row = {"validation": 0.9, "validation_loss": 0.2, "learning_rate": 0.01}
    assert results.mildest([row, row | {"validation": 0.87, "learning_rate": 0.001}]) == row
    for within in (0.881, 0.9, 0.91):
        milder = row | {"validation": within, "learning_rate": 0.001, "validation_loss": 9.0}
        assert results.mildest([row, milder]) == milder
    assert results.mildest([row, milder | {"validation": 0.89}], tie=0) == row
