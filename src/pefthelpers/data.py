"""The real texts beside the kitchen world: movie reviews, pizza instructions, general questions."""

import gzip
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir

STYLE = re.compile(r"[A-Z][^\n]{9,200}\. Heat: \d{1,3} °C\. Time: \d{1,6} seconds\.")
LEAK = re.compile(r"°C|\bHeat:|\bTime: \d+ seconds")


class Example(NamedTuple):
    """One text pair.

    Attributes:
        prompt: what the model is given; empty for a plain document.
        answer: what it must produce; the loss is computed on these tokens alone.
    """

    prompt: str
    answer: str


class Task(NamedTuple):
    """A fine-tuning task with three disjoint splits.

    Learning rates and steps are chosen on ``validation``; ``test`` is looked at once, at the end.
    """

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]


class Labelled(NamedTuple):
    """A sentence and its class, 0 or 1."""

    text: str
    label: int


class LabelledTask(NamedTuple):
    """A classification task with three disjoint splits; ``labels[i]`` names class ``i``."""

    name: str
    labels: tuple[str, str]
    train: list[Labelled]
    validation: list[Labelled]
    test: list[Labelled]


class Question(NamedTuple):
    """A general question, a reference answer, and the words of which a right answer has one."""

    prompt: str
    answer: str
    keywords: tuple[str, ...]

    @property
    def example(self) -> Example:
        """Return prompt and answer alone, as the training and loss helpers take them."""
        return Example(self.prompt, self.answer)


class General(NamedTuple):
    """General questions: ``replay`` may be mixed into training, ``measured`` must not be."""

    replay: list[Example]
    measured: list[Question]


def reviews() -> LabelledTask:
    """Return movie-review sentences labelled by the sign of their mean rating.

    10,605 sentences, each rated from -4 to 4 by at least 20 people (Hutto & Gilbert, 2014); dropped
    are those within 0.3 of neutral and repeated ones, kept 10,316 (49.6 % positive): 7,234 train,
    1,076 validation, 2,006 test. A sentence's split depends on its own text alone.

    Raises:
        UserError: the data file is missing or damaged.
    """
    rows = [row for row in _rated("movie_reviews.tsv") if abs(row[1]) >= 0.3]
    sentences = [(text, Labelled(text, int(rating > 0))) for _, rating, text in rows]
    return _split("reviews", ("negative", "positive"), sentences)


def domains() -> LabelledTask:
    """Return a second task for the same encoder: movie review (0) or newspaper editorial (1).

    The sentences of both files without repeated ones, 15,721 (32.6 % editorial): 10,964 train, 1,544
    validation, 3,213 test. A review is in the split it has in ``reviews``; the sentences of one
    editorial are all in one split.

    Raises:
        UserError: a data file is missing or damaged.
    """
    movie = [(text, Labelled(text, 0)) for _, _, text in _rated("movie_reviews.tsv")]
    editorial = [
        (f"editorial {number.split('_')[0]}", Labelled(text, 1))
        for number, _, text in _rated("editorials.tsv")
    ]
    return _split("domains", ("review", "editorial"), movie + editorial)


def pizza() -> Task:
    """Return hand-written Neapolitan pizza questions, each answered in one house style.

    The style is ``<one instruction> Heat: <n> °C. Time: <n> seconds.`` Thirty topics of ten
    questions; a topic is in one split: 180 train, 60 validation, 60 test.

    Raises:
        UserError: the data file is missing or damaged.
    """
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    path = data_dir() / "pizza" / "instructions.jsonl"
    for row in json_lines(path, ("split", "question", "instruction", "heat_c", "time_s")):
        answer = f"{row['instruction']} Heat: {row['heat_c']} °C. Time: {row['time_s']} seconds."
        splits[row["split"]].append(Example(row["question"], answer))
    return Task("pizza", **splits)


def general_questions() -> General:
    """Return questions of general knowledge, to see what fine-tuning on pizza does to the rest.

    80 for replay and 144 to measure; no question is in both, none is about cooking.

    Raises:
        UserError: the data file is missing or damaged.
    """
    replay, measured = [], []
    path = data_dir() / "general" / "questions.jsonl"
    for row in json_lines(path, ("split", "question", "answer", "keywords")):
        question = Question(row["question"], row["answer"], tuple(row["keywords"]))
        if row["split"] == "replay":
            replay.append(question.example)
        else:
            measured.append(question)
    return General(replay, measured)


def follows_style(answer: str) -> bool:
    """Tell whether a whole answer has the style of ``pizza``; says nothing about its truth."""
    return STYLE.fullmatch(answer.strip()) is not None and answer.count("Heat:") == 1


def leaks_style(answer: str) -> bool:
    """Tell whether an answer to a general question shows any part of the pizza style."""
    return LEAK.search(answer) is not None


def chat_examples(tokenizer, examples: list[Example]) -> list[Example]:
    """Put each prompt into the tokenizer's chat template, up to where the assistant speaks.

    The system turn that some templates put in front by themselves is left out: it would be most of
    the tokens of a short example. The answers stay as they are: the end-of-sequence token that
    ``training.encode`` appends is what closes a turn.
    """

    def asked(prompt: str) -> str:
        turns = [{"role": "user", "content": prompt}]
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        rendered = tokenizer.apply_chat_template(turns, **options)  # Qwen3 would think aloud first
        return rendered[max(0, rendered.find("<|im_start|>user")) :]

    return [Example(asked(prompt), answer) for prompt, answer in examples]


def damaged(path: Path, why: object) -> UserError:
    """Return the error of a data file that cannot be read: which one, why, and what to do."""
    return UserError(
        f"Cannot read {path} ({why}): restore it, for instance by `git checkout` of that file or by "
        "installing pefthelpers again."
    )


def _rated(name: str) -> list[tuple[str, float, str]]:
    """Read ``(id, rating, sentence)`` rows of a file in data/reviews."""
    path = data_dir() / "reviews" / name
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        rows = [line.split("\t") for line in lines]
        return [(number, float(rating), sentence) for number, rating, sentence in rows]
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def json_lines(path: Path, fields: tuple[str, ...]) -> list[dict]:
    """Return the rows of a file of one JSON object a line, each with at least ``fields``.

    Args:
        path: the file; one that ends in ``.gz`` is unpacked.
        fields: what each row must have.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    for number, row in enumerate(rows, start=1):
        if missing := set(fields) - set(row):
            raise damaged(path, f"line {number} has no {min(missing)}")
    return rows


def _split(name: str, labels: tuple[str, str], rows: list[tuple[str, Labelled]]) -> LabelledTask:
    """Split rows ``(key, item)`` 7 : 1 : 2 by a hash of the key, repeated texts left out.

    Rows of one key stay together, and adding a row moves no other.
    """
    splits: dict[str, list[Labelled]] = {"train": [], "validation": [], "test": []}
    seen = set()
    for key, item in rows:
        text = _plain(item.text)
        if text not in seen:
            seen.add(text)
            tenth = int(hashlib.sha256(_plain(key).encode()).hexdigest(), 16) % 10
            splits["test" if tenth < 2 else "validation" if tenth == 2 else "train"].append(item)
    return LabelledTask(name, labels, **splits)


def _plain(text: str) -> str:
    """Return a text's letters and digits in lower case, for comparing texts."""
    return " ".join(re.findall(r"\w+", text.lower()))
