"""Write data/SHA256SUMS: the checksum of every file that models and notebooks read.

Run: python -m studies.checksums [--check]     (--check: exit code 1 if the record is stale)
"""

import sys

from pefthelpers.paths import atomic_path, data_dir, sha256

FOLDERS = ("article", "kitchen", "reviews", "pizza", "general", "published")


def current() -> str:
    """Return the lines ``sha256  path``, sorted by path."""
    files = sorted(
        file
        for folder in FOLDERS
        for file in (data_dir() / folder).rglob("*")
        if file.is_file() and not file.name.startswith(".")
    )
    lines = [f"{sha256(file)}  {file.relative_to(data_dir()).as_posix()}\n" for file in files]
    return "".join(lines)


def main() -> int:
    """Write the record, or compare it."""
    path = data_dir() / "SHA256SUMS"
    if "--check" in sys.argv[1:]:
        if path.read_text("utf-8") == current():
            return 0
        print("data/SHA256SUMS is stale: run python -m studies.checksums", file=sys.stderr)
        return 1
    with atomic_path(path) as temporary:
        temporary.write_text(current(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
