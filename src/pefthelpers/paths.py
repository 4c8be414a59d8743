"""Where things are on disk: the data that ships with the package, and the cache of big models."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pefthelpers.errors import UserError


def data_dir() -> Path:
    """Return the folder ``data/``: of the checkout, or of the installed wheel.

    Raises:
        UserError: neither exists, so the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_data", package.parents[1] / "data"):
        if folder.is_dir():
            return folder
    raise UserError("The package's data folder is missing: install pefthelpers again.")


def notebooks_dir() -> Path:
    """Return the collection's folder: ``notebooks/`` here, or of the checkout."""
    for folder in (Path.cwd() / "notebooks", Path(__file__).resolve().parents[2] / "notebooks"):
        if folder.is_dir():
            return folder
    raise UserError("No folder notebooks/ here: run this command from a clone of the repository.")


def cache_dir() -> Path:
    """Return the folder of fetched models: ``$PEFTHELPERS_CACHE`` or ``~/.cache/pefthelpers``."""
    return Path(os.environ.get("PEFTHELPERS_CACHE") or Path.home() / ".cache" / "pefthelpers")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only if the block succeeds.

    A reader of ``path`` sees the old file or the whole new one, never half of it.

    Raises:
        UserError: the folder cannot be made or written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "fix its permissions"
        raise UserError(
            f"Cannot write {path} ({error.strerror or error}): {cure}, or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # it never came to be
            temporary.unlink()
