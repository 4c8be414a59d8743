"""Where notebooks run: on this machine or on a cluster, behind ``concurrent.futures.Executor``."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from pefthelpers.errors import UserError

CONNECT_S = 10


@contextmanager
def local(jobs: int) -> Iterator[Executor]:
    """Give a pool of ``jobs`` threads: each waits for the process of one notebook."""
    with ThreadPoolExecutor(jobs, thread_name_prefix="notebook") as pool:
        yield pool


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Give the executor of a Dask scheduler; a notebook whose worker dies goes to another one.

    Raises:
        UserError: the extra is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("--cluster needs Dask: pip install 'pefthelpers[cluster]'.") from error
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
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
        yield client.get_executor(pure=False)
