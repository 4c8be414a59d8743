"""Follow a run: submit notebooks, keep what comes back, stop when told to."""

import errno
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path

from nbregress import baselines, isolation, report
from nbregress.plan import Plan, check, longest_first
from nbregress.result import Job, Outcome, Result
from nbregress.run_store import RunStore, claimed

TICK_S = 0.5
STOP_S = 30


def run(
    paths: list[Path],
    out: Path,
    plan: Plan,
    *,
    executor: Executor,
    watch: Callable[[dict[str, Result], set[str]], None] = lambda results, running: None,
) -> RunStore:
    """Execute notebooks on an executor; each is written as it comes.

    Args:
        paths: the notebooks.
        out: folder for executed notebooks, ``metrics.json``, ``junit.xml`` and ``report.html``.
        plan: parameters, limits and the rest.
        executor: a local pool, or anything with the same interface.
        watch: called twice a second with the results by notebook and the names of those running.

    Raises:
        UserError: wrong use, found before anything starts.
        KeyboardInterrupt: after what was finished has been kept and reported.
    """
    check(paths, plan)
    path_of = lambda path: baselines.path_of(path.stem, plan.profile, plan.baselines)
    recorded = {path.stem: baselines.read(path_of(path)) for path in paths}
    with claimed(out):
        store = RunStore(out, plan, recorded, [path.stem for path in paths])
        own = {name: getattr(plan, name) for name in ("threads", "timeout_s", "cell_timeout_s")}
        own["caller"] = isolation.caller()
        ordered = longest_first(paths, plan.profile)
        jobs = [Job.of(path, plan.parameters, **own) for path in ordered]
        if plan.resume:
            store.resume(jobs)
        todo = [job for job in jobs if job.notebook not in store.results]
        with terminate_as_interrupt():
            follow(executor, todo, store, watch, fail_fast=plan.fail_fast)
    return store


def follow(executor: Executor, jobs: list[Job], store: RunStore, watch, *, fail_fast: bool) -> None:
    """Submit jobs in their order and keep each outcome; report whatever happens."""
    futures = {executor.submit(isolation.execute, job): job for job in jobs}
    interrupted = None
    try:
        pending = set(futures)
        watch(store.results, set())
        while pending:
            done, pending = wait(pending, timeout=TICK_S, return_when=FIRST_COMPLETED)
            for future in done:
                store.add(outcome_of(future, futures[future]))
            watch(store.results, {futures[f].notebook for f in pending if f.running()})
            if fail_fast and any(not result.good for result in store.results.values()):
                stop(pending)
                break
    except KeyboardInterrupt as error:
        interrupted = error
        finished = {future for future in futures if future.done()}
        for future in finished:  # done, but not yet kept when the signal came
            store.add(outcome_of(future, futures[future]))
        stop(set(futures) - finished)
    store.finish()
    store.report("junit.xml", report.junit)
    store.report("report.html", report.text)
    watch(store.results, set())
    if interrupted:
        raise interrupted


def outcome_of(future: Future, job: Job) -> Outcome:
    """Return a future's outcome, or a failed one that says why it could not be executed at all."""
    try:
        return future.result()
    except CancelledError:
        reason = (
            "its worker was lost, and no other was left: start workers and run it with --resume"
        )
    except Exception as error:  # noqa: BLE001 - a worker may be lost in any way
        words = (str(error).strip().splitlines() or [""])[0]
        reason = f"its worker was lost: {type(error).__name__}: {words}".rstrip(": ")
        if getattr(error, "errno", None) == errno.ENOSPC:
            folder = tempfile.gettempdir()
            reason = f"the disk where it runs is full: free some of {folder}, or set TMPDIR"
    return Outcome(Result(job.notebook, "failed", reason=reason, values=job.values))


def stop(futures: set[Future]) -> None:
    """Cancel what waits and kill what runs here; ``executors.cluster`` does that on a cluster."""
    for future in futures:
        future.cancel()
    left, end = {future for future in futures if not future.cancelled()}, time.monotonic() + STOP_S
    while left and time.monotonic() < end:
        isolation.stop_running(isolation.caller())
        _, left = wait(left, timeout=TICK_S)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, by which CI services stop a job, end a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # the caller's affair
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
