"""The learner's process: it runs the learner's cells, hands the answer over, and is called by the judge."""

import os

from peftroom.carry import Channel, packed


class Recorder:
    """Stands in the place of ``check`` while a learner's cells run: keeps what was handed to each check."""

    def __init__(self) -> None:
        """Start without an answer."""
        self.__dict__["answers"] = {}

    def __getattr__(self, name: str):
        """Return a function that keeps its first argument."""
        return lambda answer=..., **_: self.answers.__setitem__(name, answer)


def answer_of(shell, row: dict) -> tuple[object, str]:
    """Run a learner's cells; return the answer, and what stopped them before there was one.

    Args:
        shell: the prepared IPython shell.
        row: ``own`` cells before the exercise, its ``cells``, and of the official one ``check`` (the name of the
            module), ``name`` (of the function) and ``answer`` (the variable).
    """
    check = shell.user_ns[row["check"]] = Recorder()
    shell.user_ns.pop(row["answer"], None)
    for source in row["own"]:
        shell.run_cell(source)
    for source in row["cells"]:
        ran = shell.run_cell(source)
        error = ran.error_before_exec or ran.error_in_exec
        if error and row["name"] not in check.answers:
            said = words(error).partition("\n")[0]
            return ..., f"{type(error).__name__}: {said}"
    left = shell.user_ns.get(row["answer"], ...)
    return check.answers.get(row["name"], left), ""


def serve(shell, row: dict, channel: Channel) -> None:
    """Hand the answer over, then call it with what the judge sends until the judge has had enough."""
    answer, error = answer_of(shell, row)
    function = callable(answer) and not isinstance(answer, type)
    channel.answer(error=error, function=function, answer=None if function else packed(answer))

    def called(number: int):
        def there(*arguments, **named):
            channel.answer(callback=number, arguments=packed([arguments, named]))
            kind, value = channel.taken(called)
            if kind == "raised":
                raise RuntimeError(value)
            return value

        return there

    while True:
        run, (arguments, named) = channel.taken(called)
        before = packed([arguments, named])
        try:
            found = run(answer, *arguments) if run else answer(*arguments, **named)
            reply = {"result": packed(found)}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a learner's code may raise anything
            reply = {"raised": [type(error).__name__, words(error)]}
        after = packed([arguments, named])
        channel.answer(**reply, **({"changed": after} if after != before else {}))


def words(error: BaseException) -> str:
    """Return an error's text, which a learner's class may refuse to give."""
    try:
        return str(error)[:300]
    except Exception:  # noqa: BLE001
        return "no message"


def start(shell, row: dict, channel: Channel) -> None:
    """Be the learner's process, and never return: standard streams lead nowhere, nothing else is open."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        kept = channel.end.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, 4096)
        shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None
        serve(shell, row, channel)
    except BaseException:  # noqa: BLE001 - the judge sees the closed connection
        code = 1
    finally:
        os._exit(code)
