"""The grader's process of one notebook: it runs our cells once, then forks a judge for each answer.

A judge forks the learner's process, calls the learner's function there, and checks here what came back.
It reads a job as JSON from stdin and writes a line of JSON a verdict to stdout.
"""

import ast
import json
import os
import re
import select
import socket
import sys
import time

from peftroom import learner, sandbox
from peftroom.carry import Channel, Foreign, unpacked

TICK_S = 0.25
WAITS = 4  # seconds that may go by for each of CPU: the machine may be loaded


class Stopped(BaseException):
    """Why a learner's process was ended; no check catches it."""


class Called:
    """A learner's function, called in the learner's process."""

    def __init__(self, channel: "Learner") -> None:
        """Take the connection to it."""
        self.channel = channel

    def __call__(self, *arguments, **named):
        """Return what it returns; raise an exception of the name that it raised."""
        return self.channel.call(arguments, named)

    def there(self, run, *arguments):
        """Return ``run(function, *arguments)`` of the learner's process: for what shows only there, such as memory."""
        return self.channel.call(arguments, {}, run)


class Learner(Channel):
    """The judge's end of the connection to a learner's process, which has so many seconds of CPU in all."""

    def __init__(self, end: socket.socket, seconds: float, classes: dict[str, type]) -> None:
        """Take the connection, the time, and the classes that a model may be made of."""
        super().__init__(end)
        end.settimeout(seconds + 1)
        self.seconds, self.left, self.classes, self.foreign = seconds, WAITS * seconds, classes, ""

    def wait(self) -> dict:
        """Return the next message; only waiting takes the learner's time.

        Raises:
            Stopped: the time is over, too much memory or too many processes are used, or the process ended.
        """
        start = time.monotonic()
        while not select.select([self.end], [], [], TICK_S)[0]:
            if too_much := sandbox.excess(self.seconds):
                raise Stopped(f"it {too_much}")
            if time.monotonic() - start > self.left:
                raise Stopped(f"it took longer than {WAITS * self.seconds:g} s")
        try:
            found = json.loads(self.receive())
            self.left -= time.monotonic() - start
            return found
        except (EOFError, OSError, ValueError, RecursionError) as error:
            raise Stopped("its process ended before it had answered") from error

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            Stopped: nobody takes it.
        """
        try:
            super().send(message)
        except OSError as error:
            raise Stopped("its process ended before it had answered") from error

    def read_value(self, packed: object, arguments: tuple = ()):
        """Return a value of the learner's."""
        import torch

        model = next((each for each in arguments if isinstance(each, torch.nn.Module)), None)
        try:
            value = unpacked(packed, self.classes, model)
        except Exception as error:
            raise Stopped("what it sent cannot be read") from error
        self.foreign = type(value).__name__ if isinstance(value, Foreign) else ""
        return value

    def call(self, arguments: tuple, named: dict, run=None):
        """Call the learner's function, or a function of ours with it."""
        self.hand_over(run, (arguments, named))
        while "callback" in (reply := self.wait()):
            self.called_back(reply)
        if "changed" in reply:
            for given, now in zip(arguments, self.read_value(reply["changed"])[0], strict=False):
                overwrite(given, now)
        if "raised" in reply:
            name, said = map(str, reply["raised"])
            raise type(name, (Exception,), {})(said)
        return self.read_value(reply.get("result"), arguments)

    def called_back(self, reply: dict) -> None:
        """Call a function that stayed here, as the learner's process asks."""
        try:
            arguments, named = self.read_value(reply["arguments"])
            self.hand_over("value", self.given[reply["callback"]](*arguments, **named))
        except Exception as error:  # noqa: BLE001 - whatever a learner handed it
            self.hand_over("raised", f"{type(error).__name__}: {error}")


def overwrite(given: object, now: object) -> None:
    """Do to an argument what the learner's function did to its copy."""
    if isinstance(given, list):
        given[:] = now
    elif isinstance(given, dict):
        given.clear()
        given.update(now)
    elif hasattr(given, "copy_") and given.shape == now.shape:
        given.data.copy_(now)


def judged(shell, row: dict, seconds: float) -> dict:
    """Run one answer's check here, and the answer in a process of its own; return mark and why."""
    here, there = socket.socketpair()
    started = os.fork()
    if started == 0:
        here.close()
        apart = sandbox.isolate(os.environ["HOME"])
        if apart and (inner := os.fork()):
            there.close()
            os.waitpid(inner, 0)
            os._exit(0)
        sandbox.limit(seconds, row["held"], os.environ["HOME"])
        os.chdir(os.environ["HOME"])
        learner.start(shell, row, Channel(there))
    there.close()
    names, torch = shell.user_ns, sys.modules["torch"]
    known = [each for each in (*vars(torch.nn).values(), *names.values()) if isinstance(each, type)]
    channel = Learner(
        here, seconds, {each.__name__: each for each in known if issubclass(each, torch.nn.Module)}
    )
    try:
        first = channel.wait()
        if first["error"]:
            return {"mark": "broken", "why": str(first["error"])}
        answer = Called(channel) if first["function"] else channel.read_value(first["answer"])
        verdict = checked(row["official"], row["answer"], answer, names)
        return {
            "mark": verdict.status,
            "why": verdict.message if verdict.status == "not yet" else "",
        }
    except Stopped as stopped:
        return {"mark": "broken", "why": str(stopped)}


def checked(source: str, name: str, answer: object, names: dict):
    """Return the verdict of an official exercise cell whose stub, the variable ``name``, is the answer."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "<exercise>", "exec"), names)  # noqa: S102 - our own cell
    names[name] = answer
    return eval(compile(last, "<check>", "eval"), names)


def judge(shell, row: dict, seconds: float) -> dict:
    """Return an answer's mark and why, found by a fork of this process, which ends with all it started."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reads)
            found = judged(shell, row, seconds)
        except BaseException as error:  # noqa: BLE001 - the next answer is judged all the same
            found = {"mark": "broken", "why": f"its check failed: {type(error).__name__}: {error}"}
        sandbox.end_all()
        os.write(writes, json.dumps(found).encode()[:60_000])
        os._exit(0)
    os.close(writes)
    with open(reads, encoding="utf-8") as pipe:
        ready = select.select([pipe], [], [], 10 * WAITS * seconds + 60)[0]
        said = pipe.read() if ready else ""
    sandbox.end_all()
    if not said:
        return {
            "mark": "broken",
            "why": "its judge was ended" if ready else "its check took too long",
        }
    return json.loads(said)


def prepared(cells: list[str]):
    """Run our notebook's cells; return the IPython shell that holds what they defined.

    Raises:
        RuntimeError: a cell failed.
    """
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.showtraceback = lambda *_, **__: None
    for source in cells:
        ran = shell.run_cell(source)
        if error := ran.error_before_exec or ran.error_in_exec:
            raise RuntimeError(f"{source.splitlines()[0]}: {type(error).__name__}: {error}")
    return shell


def main() -> None:
    """Do the job that stdin holds."""
    job = json.load(sys.stdin)
    out, null = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.open(os.devnull, os.O_RDWR)
    tell = lambda **line: print(json.dumps(line), file=out, flush=True)
    for stream in range(3):
        os.dup2(null, stream)
    sandbox.settle(job["held"])
    start = time.monotonic()
    try:
        os.chdir(job["folder"])
        shell = prepared(job["cells"])
    except Exception as error:  # noqa: BLE001
        tell(failed=f"{sandbox.OURS}: {str(error)[:300]}")
        return
    tell(prepared=round(time.monotonic() - start, 1))
    for row in job["rows"]:
        found = judge(shell, row, job["timeout_s"])
        found["why"] = re.sub(r"0x[0-9a-f]{6,}", "0x…", found["why"])
        tell(**found)


if __name__ == "__main__":
    main()
