"""A notebook server for a room: a folder from which JupyterHub starts, and how many learners a machine holds.

The hub's configuration is ``docs/room/jupyterhub_config.py``; ``make room`` installs JupyterHub and starts it.
"""

import argparse
import hashlib
import json
import re
import secrets
import shutil
from pathlib import Path

from nbregress.cli import command, option
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, data_dir, notebooks_dir

NAME = re.compile(r"[a-z][a-z0-9._-]{0,30}")
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is read as another on paper


def read_names(path: Path) -> list[str]:
    """Return the names of a file, one a line; blank lines and ``#`` comments are left out.

    Raises:
        UserError: no file, no text, no name, a name twice, or one that cannot be a folder's.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Cannot read {path} ({getattr(error, 'strerror', error)}): it is a text file with a "
            "name a line."
        ) from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise UserError(f"{path} holds no name: write one a line.")
    for number, name in enumerate(names):
        if not NAME.fullmatch(name):
            raise UserError(
                f"{path}: {name!r} cannot be a learner's name: 1 to 31 of a-z, 0-9, '.', '_' and '-', "
                "the first a letter."
            )
        if name in names[:number]:
            raise UserError(f"{path}: {name} stands there twice.")
    return names


def digest(password: str) -> dict[str, str]:
    """Return salt and scrypt digest, as the hub's configuration compares them."""
    salt = secrets.token_bytes(16)
    key = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    return {"salt": salt.hex(), "digest": key.hex()}


def prepare(names: list[str], out: Path) -> dict[str, str]:
    """Write the folder that the hub starts from; return the new learners' passwords.

    Who has a password keeps it, and nobody's home is touched.

    Raises:
        UserError: no checkout, or the folder cannot be written.
    """
    config = data_dir().parent / "docs" / "room" / "jupyterhub_config.py"
    if not config.is_file():
        raise UserError("docs/room is not here: run this command from a clone of the repository.")
    known = out / "learners.json"
    learners = json.loads(known.read_text("utf-8")) if known.is_file() else {}
    new = {n: "".join(secrets.choice(LETTERS) for _ in range(10)) for n in names}
    new = {name: password for name, password in new.items() if name not in learners}
    learners |= {name: digest(password) for name, password in new.items()}
    with atomic_path(out / config.name) as temporary:
        shutil.copyfile(config, temporary)
    out.chmod(0o700)
    shutil.copytree(notebooks_dir(), out / "notebooks", dirs_exist_ok=True)
    lines = [f"{name}\t{password}\n" for name, password in new.items()]
    with (out / "passwords.tsv").open("a", encoding="utf-8") as file:  # first, so that none is lost
        file.writelines(lines)
    with atomic_path(known) as temporary:
        temporary.write_text(json.dumps(learners, indent=1) + "\n", encoding="utf-8")
    return new


def learners_held(memory_gib: float, measured: dict, *, reserve_gib: float = 2.0) -> int:
    """Return how many learners a machine's memory holds: ``(memory - fixed) / private``, rounded down.

    Args:
        memory_gib: the machine's memory in GiB.
        measured: ``fixed_mib``, the hub, its proxy and the pages that learners share, once; and
            ``private_mib``, what each learner adds.
        reserve_gib: what the system keeps.
    """
    free_mib = (memory_gib - reserve_gib) * 1024 - measured["fixed_mib"]
    return max(0, int(free_mib // measured["private_mib"]))


@command(
    option("names", type=Path, help="a text file with a learner's name a line"),
    option("--out", type=Path, required=True, metavar="FOLDER", help="the hub starts from here"),
    runs=False,
)
def room(options: argparse.Namespace) -> None:
    """Make passwords, homes and configuration for JupyterHub in a room."""
    new = prepare(read_names(options.names), options.out)
    print(f"{len(new)} new passwords in {options.out / 'passwords.tsv'}: print it, then delete it.")
    print("`make room` starts the hub; docs/room.md says how many learners a machine holds.")
