"""A Dask cluster to run notebooks on, behind ``concurrent.futures.Executor``."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress

from nbregress import isolation
from pefthelpers.errors import UserError

CONNECT_S = 10
LOOK_S = 1.0
LOST_S = 30.0  # a cluster without any worker for so long is given up


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Give the executor of a Dask scheduler; a notebook whose worker dies goes to another one.

    Whatever ends the run, none of its notebooks goes on there; those of other runs do.

    Raises:
        UserError: the extra is not installed, no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client

        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except ImportError as error:
        raise UserError("--cluster needs Dask: pip install 'pefthelpers[cluster]'.") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"No Dask scheduler answers at {address}: start one with `dask scheduler` and workers with "
            "`dask worker ADDRESS --nthreads 1`."
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise UserError(
                f"The scheduler at {address} has no workers: start some with "
                f"`dask worker {address} --nthreads 1`."
            )
        # Not pure: the same notebook may be asked for twice and has to run twice.
        executor, over = client.get_executor(pure=False), threading.Event()
        threading.Thread(target=give_up, args=(client, executor, over), daemon=True).start()
        try:
            yield executor
        finally:
            over.set()
            with suppress(Exception):  # a cluster that is gone runs nothing any more
                client.run(isolation.stop_running, isolation.caller(), on_error="return")


def give_up(client, executor: Executor, over: threading.Event) -> None:
    """Cancel all that is left once a cluster had no worker for ``LOST_S``: Dask would wait for ever."""
    seen = time.monotonic()
    while not over.wait(LOOK_S):
        try:
            workers = client.scheduler_info()["workers"]
        except Exception:  # noqa: BLE001 - no scheduler: the client itself cancels what is left
            return
        if workers:
            seen = time.monotonic()
        elif time.monotonic() - seen > LOST_S:
            executor.shutdown(wait=False)
            return
