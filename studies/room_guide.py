"""Write the measured parts of docs/room.md from the records of room_server and room_bundle.

python -m studies.room_guide
"""

import re

from pefthelpers import results
from pefthelpers.paths import atomic_path, data_dir

GUIDE = data_dir().parent / "docs" / "room.md"
MOMENTS = {
    "reading": "has a notebook open, imports done",
    "trained": "has trained, kernel still open",
    "training": "trains, at its peak",
}


def server_text() -> str:
    """Return the table of what a learner costs, and what follows from it."""
    found = results.read("room_server")
    cases, rows = found["cases"], found["together"]
    lines = [
        "| each learner … | adds to memory | learners on 8 GB | 16 GB | 32 GB | 64 GB |",
        "|---|---|---|---|---|---|",
    ]
    for key, text in MOMENTS.items():
        held = " | ".join(map(str, cases[key]["learners"].values()))
        lines.append(f"| {text} | {cases[key]['private_mib']:.0f} MiB | {held} |")
    kernel = max(row["after"]["kernel"]["private"] for row in rows)
    cpu = {
        key: max(row[key]["cpu_s"] for row in rows) for key in ("00", "02_imports", "02_training")
    }
    both = cpu["02_imports"] + cpu["02_training"]
    wall = max(row["02_training"]["wall_s"] for row in rows)
    lines += [
        "",
        (
            f"The hub, its proxy and the libraries' pages that all learners share take {cases['training']['fixed_mib']:.0f} MiB "
            "once; 2 GiB are left to the system. So a machine of M GiB holds "
            f"(1,024 · (M - 2) - {cases['training']['fixed_mib']:.0f}) / (MiB of the row) learners, rounded down. A second notebook "
            f"left open adds up to {kernel:.0f} MiB: ask learners to shut kernels down."
        ),
        "",
        (
            f"Processor: notebook 00 took {cpu['00']:.0f} CPU seconds a learner, 02 up to the end of its first training {both:.0f}, of "
            f"them {cpu['02_imports']:.0f} for imports. N learners who start together on C free cores wait about N · {both:.0f} / C "
            f"seconds: 20 learners on 8 cores {20 * both / 8:.0f} (worked out, not tried). Measured with {len(rows)} learners at once on "
            f"{found['machine']['cores']} cores that other work kept busy, where the same stretch took up to {wall:.0f} s after the imports."
        ),
    ]
    return "\n".join(lines)


def minutes(seconds: float) -> str:
    """Return seconds as minutes, one decimal."""
    return f"{seconds / 60:.1f} min"


def bundle_text() -> str:
    """Return the sizes and minutes of a bundle, of those steps that were measured."""
    found = results.read("room_bundle")
    names = ", ".join(found.get("run", {}).get("notebooks", []))
    lines = ["| Linux x86_64, Python 3.11 | MB | wall time | CPU time |", "|---|---|---|---|"]
    for key, text, sized in (
        ("make", "make the bundle (network)", "size"),
        ("check", "compare its files with the manifest", None),
        ("install", "install it (no network)", "installed"),
        ("run", f"run notebooks: {names} (no network)", None),
    ):
        if step := found.get(key):
            size = f"{found[sized]['mb']:,.0f}" if sized else ""
            times = f"{minutes(step['wall_s'])} | {minutes(step['cpu_s'])}"
            lines.append(f"| {text} | {size} | {times} |")
    harmed = found["harmed"]
    codes = " and ".join(f"{harmed[each]['rc']}" for each in ("check", "installer"))
    lines += [
        "",
        (
            f"Of the copy with one file harmed, `--check` and the installer said `{harmed['check']['said'][0]}`, with exit codes {codes}; "
            f"{'it was installed all the same' if harmed['installed'] else 'nothing was installed'}. A connection to the outside, tried "
            f"from where the whole copy was then installed, ended in `{found['outside']['said'][-1]}`."
        ),
    ]
    return "\n".join(lines)


def rendered() -> dict[str, str]:
    """Return the measured parts of the guide by their names."""
    return {"room_server": server_text(), "room_bundle": bundle_text()}


def main() -> None:
    """Put each part between its marks."""
    text = GUIDE.read_text(encoding="utf-8")
    for name, part in rendered().items():
        mark = f"<!-- {name} -->"
        text = re.sub(
            f"{mark}.*?{mark}", lambda _, m=mark, p=part: f"{m}\n{p}\n{m}", text, flags=re.DOTALL
        )
    with atomic_path(GUIDE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
