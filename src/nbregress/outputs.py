"""What is kept of a cell's outputs: a cell that prints without end fills no disk and no report."""

import json

from pefthelpers.record import METRIC_MIME, TEXT_MIME

# Characters a cell: of each stream; of all else that it shows.
TEXT, DISPLAYS = 1_000_000, 10_000_000
OURS = (METRIC_MIME, TEXT_MIME)


class Room:
    """The room that is left for one cell's outputs; messages of the kernel are cut to it.

    Attributes:
        cut: whether something had no room.
    """

    def __init__(self) -> None:
        """Give a cell all the room there is."""
        self.cut, self.left = False, {}

    def fit(self, kind: str, content: dict) -> bool:
        """Cut a message's content to the room left; return whether anything of it is to be shown.

        Args:
            kind: the message's type: ``stream``, ``display_data``, ``error``, …
            content: its content, changed in place.
        """
        if kind == "clear_output":
            self.left = {}
        if kind == "stream":
            return self.fit_stream(content)
        if kind == "error":
            content["evalue"] = self.middle_out(content["evalue"])
            content["traceback"] = [self.middle_out("\n".join(content["traceback"]))]
        elif data := content.get("data", {}) if kind.endswith(("display_data", "_result")) else {}:
            size = sum(map(length, data.values()))
            self.left["displays"] = self.left.get("displays", DISPLAYS) - size
            if self.left["displays"] < 0:
                said = f"[left out here: {size:,} characters; a cell may show {DISPLAYS:,}]"
                content["data"] = {"text/plain": said} | {k: data[k] for k in OURS if k in data}
                self.cut = True
        return True

    def fit_stream(self, content: dict) -> bool:
        """Cut a message of stdout or stderr; return whether anything of it is to be shown."""
        name, text = content["name"], content["text"]
        left = self.left.get(name, TEXT)
        self.left[name] = left - len(text)
        if left < len(text):
            self.cut = True
            content["text"] = text[: max(left, 0)] + f"\n[cut here: {TEXT:,} characters are kept]\n"
        return left >= 0

    def middle_out(self, text: str) -> str:
        """Leave out the middle of an error's text if it is longer than a cell may print."""
        if len(text) <= TEXT:
            return text
        self.cut = True
        return f"{text[: TEXT // 2]}\n[cut here]\n{text[-TEXT // 2 :]}"


def length(value: object) -> int:
    """Return how many characters a part of an output takes in the file."""
    return len(value if isinstance(value, str) else json.dumps(value))
