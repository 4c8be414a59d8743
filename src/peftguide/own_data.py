"""The reader's own data, read and checked before training.

Every recipe carries these functions as they stand here: they use the standard library alone, and
end in one sentence (``SystemExit``) where the data cannot be used. A *pair* is a prompt, text or a
list of messages, and its answer.
"""

import json
import random
from pathlib import Path

# For a tokenizer without a chat template of its own.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
COLUMNS = {
    "chat": '"messages" with an answer of the assistant, or "prompt" and "completion"',
    "summarise": '"text" and "summary"',
    "classify": '"text" (or "sentence") and "label"',
}


def read_rows(path: str) -> list[dict]:
    """Return the objects of a JSONL file."""
    if not Path(path).is_file():
        raise SystemExit(f"There is no file {path}: give the path of a JSONL file.")
    rows = []
    with open(path, encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except (ValueError, RecursionError):  # no JSON, or nested without end
                rows += [None]
            if rows and not isinstance(rows[-1], dict):
                raise SystemExit(f"{path}, line {number}: write one JSON object, {{...}}, a line.")
    return rows


def full(text) -> bool:
    """Tell whether this is text with something in it, and no half of a character (a surrogate)."""
    whole = isinstance(text, str) and not any("\ud800" <= each <= "\udfff" for each in text)
    return whole and bool(text.strip())


def pairs_of(row: dict, task: str) -> list[tuple]:
    """Return a row's pairs: one for each answer of a conversation, none if it cannot be used."""
    if task == "classify":
        text, label = row.get("text", row.get("sentence")), row.get("label")
        named = isinstance(label, int) or full(label)
        return [(text, str(label).strip())] if full(text) and named else []
    if task == "summarise":
        text, summary = row.get("text"), row.get("summary")
        return [(text, summary)] if full(text) and full(summary) else []
    said = row.get("messages")
    if said is None:  # prompt and completion: texts, or lists of messages
        before, after = row.get("prompt"), row.get("completion")
        before = [{"role": "user", "content": before}] if isinstance(before, str) else before
        after = [{"role": "assistant", "content": after}] if isinstance(after, str) else after
        said = before + after if isinstance(before, list) and isinstance(after, list) else []
    told = isinstance(said, list) and all(
        isinstance(m, dict) and full(m.get("role")) and full(m.get("content")) for m in said
    )
    answers = [i for i, m in enumerate(said) if m["role"] == "assistant" and i] if told else []
    return [(said[:i], said[i]["content"]) for i in answers]


def words(prompt) -> str:
    """Return what makes two prompts the same: their words, without case and spaces."""
    text = prompt if isinstance(prompt, str) else " ".join(m["content"] for m in prompt)
    return " ".join(text.lower().split())


def usable(path: str, task: str, findings: list[str]) -> list[list[tuple]]:
    """Return the pairs of each usable row, every row once; say what was left out."""
    rows = read_rows(path)
    found = [pairs_of(row, task) for row in rows]
    bad = [number for number, pairs in enumerate(found, 1) if not pairs]
    if len(bad) * 2 >= len(rows):
        has = ", ".join(map(repr, list(rows[bad[0] - 1])[:6])) if rows else ""
        where = f"row {bad[0]} has {has or 'nothing'}" if rows else "the file has no row"
        raise SystemExit(
            f"{path}: for {task} a row has {COLUMNS[task]}, with text in them; {where}, and {len(bad)} of "
            f"{len(rows)} rows cannot be used."
        )
    if bad:
        findings += [
            f"{len(bad)} of {len(rows)} rows lack {COLUMNS[task]} (row {bad[0]}): left out."
        ]
    unique = {json.dumps(pairs): pairs for pairs in found if pairs}
    if twice := len(rows) - len(bad) - len(unique):
        findings += [f"{twice} rows stand there twice: each is used once."]
    return list(unique.values())


def start(pairs: list[tuple]) -> str:
    """Return what a row's first prompt asks: rows that ask the same go to the same side."""
    return words(pairs[0][0])


def parted(rows: list, task: str, seed: int) -> tuple:
    """Return rows to train on and rows held out: a tenth of the prompts, at most 500."""
    prompts = sorted({start(pairs) for pairs in rows})
    random.Random(seed).shuffle(prompts)
    asked = set(prompts[: min(500, max(1, len(prompts) // 10))])
    train = [pairs for pairs in rows if start(pairs) not in asked]
    held = [pairs for pairs in rows if start(pairs) in asked]
    if task == "classify":  # a label that is rare must not be held out alone
        known = {label for pairs in train for _, label in pairs}
        train += [pairs for pairs in held if pairs[0][1] not in known]
        held = [pairs for pairs in held if pairs[0][1] in known]
    return train, held


def split(path: str, other: str | None, task: str, seed: int, findings: list[str]) -> tuple:
    """Return pairs to train on and pairs held out, no prompt on both sides.

    Held out is the file ``other``, or a part of the first one.
    """
    rows = usable(path, task, findings)
    if other:
        held = usable(other, task, findings)
        asked = {start(pairs) for pairs in held}
        train = [pairs for pairs in rows if start(pairs) not in asked]
        if not train:
            raise SystemExit(
                f"{path}: every prompt stands in {other} too: nothing is left to train on."
            )
        if both := len(rows) - len(train):
            findings += [
                f"{both} rows ask what a held-out row asks: left out of the training data."
            ]
    else:
        train, held = parted(rows, task, seed)
    train, held = ([pair for pairs in part for pair in pairs] for part in (train, held))
    if not train or not held:
        raise SystemExit(f"{path}: too few different prompts to train on some and hold others out.")
    findings += [f"{len(train)} examples to train on, {len(held)} held out."]
    if len(train) < 100:
        findings += ["Fewer than 100 examples: try them in the prompt of the base model first."]
    if task == "classify":
        findings += labels_said(train, held)
    return train, held


def labels_said(train: list[tuple], held: list[tuple]) -> list[str]:
    """Say what is wrong with labels: too few, unknown ones, one sentence under two."""
    known, under = {label for _, label in train}, {}
    for text, label in train + held:
        under.setdefault(words(text), set()).add(label)
    if len(known) < 2:
        raise SystemExit("A classifier needs two labels at least in what it is trained on.")
    if new := sorted({label for _, label in held} - known):
        said = ", ".join(new[:5]) + ", …" * (len(new) > 5)
        raise SystemExit(f"{len(new)} labels of held-out rows are in no training row: {said}.")
    both = sum(len(labels) > 1 for labels in under.values())
    said = [f"{both} sentences stand there under two labels: one is wrong."] if both else []
    if len(known) * 2 > len(train):
        said += [f"{len(known)} labels for {len(train)} sentences: are these classes?"]
    return said


def lengths_said(lengths: list[int], limit: int, what: str, then: str) -> list[str]:
    """Say how many of these lengths in tokens lie above the limit, and which limit would do."""
    long = sum(length > limit for length in lengths)
    enough = sorted(lengths)[int(0.99 * (len(lengths) - 1))]
    said = f"{what}: {enough} tokens hold 99 %, the longest has {max(lengths)}, LENGTH is {limit}"
    return [f"{said}: {long} ({long / len(lengths):.0%}) are {then}." if long else f"{said}."]


def ends_said(ended: list[bool], end: str) -> list[str]:
    """Say how many answers do not end in the token that stops generation."""
    lack = ended.count(False)
    return (
        [f"{lack} of {len(ended)} answers lack the end token {end}: it is added."] if lack else []
    )


def messages_of(prompt) -> list[dict]:
    """Return a prompt as messages; a text without any is one to summarise."""
    if isinstance(prompt, list):
        return prompt
    return [{"role": "user", "content": f"Summarise this text.\n\n{prompt}"}]


def in_template(messages: list[dict], tokenizer, **options) -> str:
    """Return messages in the model's chat template; Qwen3's is asked not to think aloud first."""
    from jinja2 import TemplateError  # what templates are written in: transformers needs it too

    options |= {"tokenize": False, "enable_thinking": False}
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except (TemplateError, TypeError) as problem:  # such as Gemma's, for a system message
        roles = ", ".join(str(message["role"]) for message in messages[:6])
        raise SystemExit(
            f"The model's chat template refuses messages of the roles {roles}: {problem}."
        ) from None


def prompt_ids(prompt, tokenizer) -> list[int]:
    """Return a prompt's token ids in the chat template, up to where the answer begins."""
    text = in_template(messages_of(prompt), tokenizer, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def coded_pair(pair: tuple, tokenizer) -> dict:
    """Return a pair's token ids, and labels: the answer with its end token, not the prompt."""
    told = [*messages_of(pair[0]), {"role": "assistant", "content": pair[1]}]
    text = in_template(told, tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    same = [a == b for a, b in zip(prompt_ids(pair[0], tokenizer), ids, strict=False)]
    start = same.index(False) if False in same else len(same)
    ended = tokenizer.eos_token_id in ids[start:]
    ids += [] if ended else [tokenizer.eos_token_id]
    labels = [-100] * start + ids[start:]
    return {"input_ids": ids, "labels": labels, "ended": ended, "length": len(ids)}
