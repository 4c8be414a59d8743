"""Follow a run: submit notebooks, keep what comes back, stop when told to."""

import errno
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path

from nbregress import baselines, isolation, report
from nbregress.plan import Plan, check, longest_first
from nbregress.result import Job, Outcome, Result
from nbregress.run_store import STOPPED, RunStore, claimed

TICK_S = 0.5
STOP_S = 30
KILLED = "its process was killed"  # in the reason of a notebook that was running when its run was stopped
ENDING = ("SIGTERM", "SIGHUP", "SIGQUIT")  # where there are such


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
        own = {
            name: getattr(plan, name)
            for name in ("threads", "timeout_s", "cell_timeout_s", "answers")
        }
        own["caller"] = isolation.caller()
        ordered = longest_first(paths, plan.profile)
        jobs = [Job.of(path, plan.parameters, **own) for path in ordered]
        if plan.resume:
            store.resume(jobs)
        todo = [job for job in jobs if job.notebook not in store.results]
        with signals_as_interrupt():
            follow(executor, todo, store, watch, fail_fast=plan.fail_fast)
    return store


def follow(executor: Executor, jobs: list[Job], store: RunStore, watch, *, fail_fast: bool) -> None:
    """Submit jobs in their order and keep each outcome; report whatever happens."""
    futures = {executor.submit(isolation.execute, job): job for job in jobs}
    interrupted = False

    def tell(running: set[str]) -> None:
        with suppress(OSError):  # a closed pipe, a lost terminal: the run goes on unread
            watch(store.results, running)

    try:
        pending = set(futures)
        tell(set())
        while pending:
            done, pending = wait(pending, timeout=TICK_S, return_when=FIRST_COMPLETED)
            for future in done:
                store.add(outcome_of(future, futures[future]))
            tell({futures[f].notebook for f in pending if f.running()})
            if fail_fast and any(not result.good for result in store.results.values()):
                break
    except KeyboardInterrupt:
        interrupted = True
    end(futures, store)
    tell(set())
    if interrupted:
        raise KeyboardInterrupt(*[name for name, row in store.results.items() if row.good])


def end(futures: dict[Future, Job], store: RunStore) -> None:
    """Keep what is done, stop the rest, keep the cells that it came to, and write the reports."""
    left = {future for future, job in futures.items() if job.notebook not in store.results}
    done = {future for future in left if future.done()}  # but not yet kept when the signal came
    stop(left - done)
    for future in [future for future in left if future.done() and not future.cancelled()]:
        outcome = outcome_of(future, futures[future])
        if future not in done and KILLED in outcome.result.reason:
            outcome.result.status, outcome.result.reason = "stopped", STOPPED
        store.add(outcome)
    store.finish()
    store.report("junit.xml", report.junit)
    store.report("report.html", report.text)


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
            reason = isolation.no_room(tempfile.gettempdir())
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
def signals_as_interrupt() -> Iterator[None]:
    """Let the signals that ask a process to end (a CI service's, a lost terminal's) end a run as Ctrl-C does.

    One that is ignored, as SIGHUP under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():  # the caller's affair
        yield
        return
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
