"""Where learners' code runs: nothing to write to but a small memory disk, no network, an end on time.

Bubblewrap holds the grader's process, and each learner's process in it has namespaces of its own. Without
bubblewrap Linux's Landlock refuses writing; ``PROMISES`` says what holds then.
"""

import ctypes
import os
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, notebooks_dir

NOBODY, SCRATCH = 65534, "/scratch"
DISK, FILE, MEMORY = 256 * 2**20, 64 * 2**20, 2 * 2**30  # bytes
PROCESSES = 32
NEW = (
    0x10000000 | 0x20000 | 0x8000000 | 0x20000000 | 0x40000000
)  # user, mount, ipc, process, network
SUBREAPER, DUMPABLE, NO_NEW_PRIVILEGES = 36, 4, 38  # of prctl
CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # Landlock's system calls
WRITES = sum(
    1 << bit for bit in (1, *range(4, 15))
)  # Landlock's rights: write, remove, make, truncate
OURS = "our own notebook did not run here"
PROMISES = {
    "bubblewrap": "Learners' code ran in bubblewrap: no network, nothing to write to but a memory disk, no file "
    "of yours to read beside Python and the collection; all its processes ended with it.",
    "namespaces": "Learners' code ran WITHOUT bubblewrap (apt install bubblewrap), in namespaces and under Landlock: no "
    "network, nothing to write to but a memory disk; but it could read your files.",
    "landlock": "Learners' code ran WITHOUT bubblewrap (apt install bubblewrap) and without namespaces. Landlock refused "
    "writing outside a scratch folder, and TCP from Linux 6.7 on; the code could read your files, change their "
    "permissions and times, and send UDP.",
    "nothing": "Learners' code ran UNPROTECTED, with your rights: only time, memory and file size were limited.",
}


def landlock() -> int:
    """Return the version of Landlock that this kernel has, 0 for none."""
    return max(0, ctypes.CDLL(None).syscall(CREATE, None, 0, 1)) if sys.platform == "linux" else 0


def choose(unprotected: bool) -> str:
    """Return what can hold learners' code here, a key of ``PROMISES``.

    Raises:
        UserError: nothing can, and ``unprotected`` does not ask for it all the same.
    """
    if bubblewrap_works():
        return "bubblewrap"
    if landlock() and owner()[0] and can_isolate():  # root is not held by either
        return "namespaces"
    if unprotected:
        return "landlock" if landlock() else "nothing"
    raise UserError(
        "Learners' code needs a sandbox: `apt install bubblewrap` on Linux or WSL, or --unprotected on a "
        "machine that holds nothing else."
    )


def bubblewrap_works() -> bool:
    """Tell whether bubblewrap is here and may make its namespaces."""
    with suppress(OSError, subprocess.TimeoutExpired):
        tried = [*bubblewrap(Path("/nowhere")), sys.executable, "-c", ""]
        return not subprocess.run(tried, capture_output=True, check=False, timeout=60).returncode
    return False


def bubblewrap(hand_ins: Path) -> list[str]:
    """Return the command, up to the program, that runs one with what Python needs to read and no more.

    Args:
        hand_ins: the learners' folder, hidden even where it lies in what Python needs.
    """
    apart = ["user"] if owner()[0] else []  # root needs none to make the others, and becomes nobody
    words = ["bwrap", "--die-with-parent", "--new-session"]
    words += [f"--unshare-{name}" for name in (*apart, "ipc", "pid", "net", "uts")]
    words += [] if apart else ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    needed = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/fonts", "/etc/ssl"]
    needed += [sys.base_prefix, sys.prefix, *sys.path, data_dir(), notebooks_dir()]
    words += [
        "--perms",
        "1777",
        "--size",
        "1048576",
        "--tmpfs",
        "/tmp",
    ]  # what is needed may lie in it
    bound: list[Path] = []
    for path in sorted({form for each in needed if str(each) for form in forms(each)}):
        if not any(path.is_relative_to(outer) for outer in bound):
            bound.append(path)
            for parent in [*path.parents][-2::-1]:  # else they are root's alone
                words += ["--perms", "0755", "--dir", str(parent)]
            words += ["--ro-bind", str(path), str(path)]
    if any(hand_ins.is_relative_to(path) for path in bound):
        words += ["--tmpfs", str(hand_ins)]
    words += ["--proc", "/proc", "--dev", "/dev", "--size", "1048576", "--tmpfs", "/dev/shm"]
    words += ["--perms", "1777", "--size", str(DISK), "--tmpfs", SCRATCH]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH]


def forms(path: object) -> set[Path]:
    """Return a path as it is written, absolute, and where its links lead."""
    return {Path(path).absolute(), Path(path).resolve()} if Path(path).exists() else set()


def environment(scratch: str) -> dict[str, str]:
    """Return all the variables that the grader's process has: no secret of the teacher's is among them."""
    quiet = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    quiet |= {"PEFTHELPERS_HEADLESS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    folders = dict.fromkeys(("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR", "HF_HOME"), scratch)
    fixed = {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return (
        {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TORCHDYNAMO_DISABLE": "1"}
        | quiet
        | folders
        | fixed
    )


def settle(held: str) -> None:
    """Make this process the grader's: nobody instead of root, unreadable to others."""
    libc = ctypes.CDLL(None)
    if held == "bubblewrap" and owner()[0] == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if sys.platform == "linux":
        libc.prctl(SUBREAPER, 1, 0, 0, 0)
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        libc.prctl(DUMPABLE, 0, 0, 0, 0)  # learners' processes cannot look into it


def refuse_writing(libc: ctypes.CDLL, scratch: str) -> None:
    """Let this process, and all that it starts, write in ``scratch`` alone; from version 4 on no TCP.

    Raises:
        OSError: the kernel refused.
    """
    version = landlock()
    writes = WRITES & ~((version < 2) << 13 | (version < 3) << 14)  # moving, truncating
    rules = struct.pack("QQ", writes, 0b11 if version >= 4 else 0)
    ruleset = libc.syscall(CREATE, rules, 16 if version >= 4 else 8, 0)
    for path, rights in ((scratch, writes), ("/dev/null", WRITES & (1 << 1 | (version > 2) << 14))):
        place = os.open(path, os.O_PATH)
        libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0)
    if ruleset < 0 or libc.syscall(RESTRICT, ruleset, 0):
        raise OSError("Landlock refused")


def isolate(scratch: str) -> bool:
    """Give the process that is forked next namespaces of its own; False where the kernel does not.

    It is process 1 there: with it everything that it started ends. ``scratch`` is an empty disk there.
    """
    if sys.platform != "linux":
        return False
    libc, (user, group) = ctypes.CDLL(None), owner()
    libc.prctl(DUMPABLE, 1, 0, 0, 0)  # else its own entries in /proc are not its own
    if libc.unshare(NEW):
        return False
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        Path("/proc/self", name).write_text(line, encoding="ascii")
    steps = (
        libc.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None),  # what is mounted here stays here
        # All is read-only (mount_setattr): Landlock does not know of permissions and times.
        libc.syscall(442, -100, b"/", 0x8000, struct.pack("4Q", 1, 0, 0, 0), 32),
        libc.mount(b"scratch", scratch.encode(), b"tmpfs", 6, f"size={DISK},mode=1777".encode()),
    )
    return not any(steps)


def owner() -> tuple[int, int]:
    """Return the user and the group that this process runs as."""
    import psutil

    me = psutil.Process()
    return me.uids().effective, me.gids().effective


def can_isolate() -> bool:
    """Tell whether this kernel gives a process namespaces of its own, with all that is mounted read-only."""
    tried = "import sys; from peftroom import sandbox; sys.exit(not sandbox.isolate(sys.argv[1]))"
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", tried, scratch]
        return not subprocess.run(command, capture_output=True, check=False).returncode


def limit(timeout_s: float, held: str, scratch: str) -> None:
    """Take this process's last rights and set its limits: it is about to run a learner's code."""
    import resource  # Windows has none, and no learner's code is run there

    import psutil

    if held in ("landlock", "namespaces"):
        refuse_writing(ctypes.CDLL(None), scratch)
    if sys.platform == "linux":
        nothing = (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), nothing)
    used = psutil.Process().memory_info().vms if sys.platform == "linux" else 0
    for name, most in {
        "RLIMIT_AS": used + MEMORY,
        "RLIMIT_FSIZE": FILE,
        "RLIMIT_NPROC": PROCESSES,
        "RLIMIT_CPU": int(timeout_s) + 10,
        "RLIMIT_CORE": 0,
    }.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


def end_all() -> None:
    """Kill all that this process started, daemons too, which are its children since their parents ended."""
    import psutil

    while started := psutil.Process().children(recursive=True):
        for process in started:
            with suppress(psutil.Error):
                process.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def excess(seconds: float) -> str:
    """Say what this process's descendants use too much of: CPU, processes, memory of their own; empty if nothing."""
    import psutil

    started, memory, cpu_s = psutil.Process().children(recursive=True), 0, 0.0
    if len(started) > PROCESSES // 2:
        return "started too many processes"
    for process in started:
        with suppress(psutil.Error, OSError):
            cpu_s += sum(process.cpu_times()[:4])
            memory += process.memory_full_info().uss
    if memory > MEMORY:
        return f"used more than {MEMORY >> 30} GiB of memory"
    return f"took longer than {seconds:g} s" if cpu_s > seconds else ""
