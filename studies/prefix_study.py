"""How a prefix must be trained, and what it cannot be taught, on the kitchen models: for notebook 04.

Run: python -m studies.prefix_study     (resumable; about 25 CPU minutes)

Four questions, each a list of cells below. A cell is a task, a way to make the virtual tokens
(``kind``), their number and the training steps. Each cell climbs a ladder of learning rates on seed
0, going on while the best on validation is at the edge, and runs the chosen one on seeds 1 and 2.
Test figures are read at the chosen rate only. ``windows`` runs every rate of the ladder, so that one
sees how wide the window of rates is that work.
"""

from functools import cache
from typing import NamedTuple

import torch
from peft import (
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
    initialize_kv_prefix_from_past_key_values,
    initialize_kv_prefix_from_text,
)

from pefthelpers import kitchen, measure, models, session
from pefthelpers.models import folder_of
from pefthelpers.paths import data_dir
from pefthelpers.profiles import settings
from pefthelpers.training import fit, is_seq2seq
from studies.engine import Study, search_learning_rate
from studies.kitchen_world import summary_tasks
from studies.kitchen_world.facts import PIZZAS

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
TASKS = {
    ("decoder", "elicit"): kitchen.elicit,
    ("decoder", "learn"): kitchen.learn,
    ("seq2seq", "elicit"): summary_tasks.elicit,
    ("seq2seq", "learn_facts"): summary_tasks.learn_facts,
}
# Eight tokens each, in front of the question, where the base model has met cues.
TEXTS = {
    "cue": "we are hungry . answer as nonna .",
    "real K/V": "we are hungry . it is late .",
}
TOPPINGS = {word for pizza in PIZZAS.values() for word in pizza}


class Cell(NamedTuple):
    """What is trained; ``first``: positions on the ladder where the search begins."""

    role: str
    task: str
    kind: str
    tokens: int
    steps: int
    first: tuple[int, ...]

    def key(self) -> dict:
        """Return what names the cell's rows."""
        return {name: value for name, value in self._asdict().items() if name != "first"}


PROJECTED, DIRECT = (0, 1, 2, 3, 4, 5), (2, 3, 4, 5, 6, 7, 8)
WINDOWS = [
    Cell("decoder", "elicit", "projection", 8, 100, PROJECTED),
    Cell("decoder", "elicit", "random", 8, 100, DIRECT),
    Cell("seq2seq", "elicit", "projection", 30, 100, PROJECTED),
    Cell("seq2seq", "elicit", "random", 30, 100, DIRECT),
]
STARTS = [
    Cell("decoder", "elicit", "zero", 8, 100, DIRECT),
    Cell("decoder", "elicit", "real K/V", 8, 100, DIRECT),
    Cell("decoder", "elicit", "cue", 8, 100, DIRECT),
    Cell("seq2seq", "elicit", "zero", 30, 100, DIRECT),
    Cell("seq2seq", "elicit", "real K/V", 30, 100, DIRECT),
    Cell("decoder", "elicit", "prompt, random", 8, 100, (4, 5, 6)),
    Cell("decoder", "elicit", "prompt, cue", 8, 100, (2, 3, 4)),
]
LENGTHS = [
    Cell("decoder", "elicit", "projection", tokens, 100, (2, 3, 4)) for tokens in (1, 2, 4, 16, 32)
]
FACTS = [
    Cell("decoder", "learn", "projection", 8, 200, (3, 4)),
    Cell("decoder", "learn", "random", 8, 200, (6, 7)),
    Cell("decoder", "learn", "projection", 8, 800, (3, 4)),
    Cell("decoder", "learn", "random", 8, 800, (6, 7)),
    Cell("decoder", "learn", "random", 64, 300, (6, 7)),
]


@cache
def base_text(tokenizer, count: int) -> torch.Tensor:
    """Return the first ``count`` ids of plain summaries, (1, count): what a T5 decoder has written."""
    text = " ".join(example.answer for example in summary_tasks.summaries(10, seed=1))
    return tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[:, :count]


def start_from_text(model, tokenizer, cell: Cell) -> None:
    """Set a prefix to the keys and values that the base computes for a text."""
    if not is_seq2seq(model):
        text = TEXTS[cell.kind]
        initialize_kv_prefix_from_text(model, tokenizer, text=text, use_chat_template=False)
        return
    with torch.no_grad(), model.disable_adapter():
        question = tokenizer(summary_tasks.elicit().train[0].prompt, return_tensors="pt")
        seen = model(**question, decoder_input_ids=base_text(tokenizer, cell.tokens))
    cache = seen.past_key_values.self_attention_cache
    initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)


def adapt(cell: Cell, seed: int):
    """Load the base of a cell and put virtual tokens on it; return model and tokenizer."""
    model, tokenizer = models.load(cell.role)
    torch.manual_seed(seed)
    task_type = "SEQ_2_SEQ_LM" if cell.role == "seq2seq" else "CAUSAL_LM"
    common = {"task_type": task_type, "num_virtual_tokens": cell.tokens}
    if cell.kind.startswith("prompt"):
        text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXTS["cue"]}
        text["tokenizer_name_or_path"] = folder_of(cell.role, settings(cell.role))
        random = {"prompt_tuning_init": "RANDOM"}
        config = PromptTuningConfig(**common, **(text if "cue" in cell.kind else random))
        return get_peft_model(model, config), tokenizer
    width = model.config.hidden_size
    config = PrefixTuningConfig(
        **common,
        prefix_projection=cell.kind == "projection",
        encoder_hidden_size=width,
        init_weights="zero" if cell.kind == "zero" else None,
    )
    model = get_peft_model(model, config)
    if cell.kind in TEXTS:
        start_from_text(model, tokenizer, cell)
    return model, tokenizer


def one_run(cell: Cell, learning_rate: float, seed: int) -> dict:
    """Train one set of virtual tokens; return its size and what it reaches."""
    data = TASKS[cell.role, cell.task](seed)
    model, tokenizer = adapt(cell, seed)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=cell.steps, seed=seed)
    row = {
        "trained": measure.count_parameters(model)[0],
        "saved": model.get_prompt_embedding_to_save("default").numel(),
        "validation": measure.exact_match(model, tokenizer, data.validation),
        "validation_loss": measure.mean_loss(model, tokenizer, data.validation),
        "test": measure.exact_match(model, tokenizer, data.test),
    }
    if cell.task.startswith("learn"):
        row["facts"], row["format"] = measure.token_match(model, tokenizer, data.test, TOPPINGS)
    return {name: round(value, 4) for name, value in row.items()}


def decoded(cell: Cell, learning_rate: float, seed: int) -> dict:
    """Train once more; return the share of test answers generated exactly, greedily and by beams."""
    data = TASKS[cell.role, cell.task](seed)
    model, tokenizer = adapt(cell, seed)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=cell.steps, seed=seed)
    wanted = [example.answer for example in data.test]
    shares = {}
    for name, beams in (("greedy", 1), ("four_beams", 4)):
        texts = measure.generate(model, tokenizer, data.test, num_beams=beams)
        shares[name] = round(sum(map(str.__eq__, texts, wanted)) / len(wanted), 4)
    return shares


class Search:
    """The cells' rows in one study."""

    def __init__(self, study: Study) -> None:
        """Use the rows there are."""
        self.study = study

    def run(self, cell: Cell, learning_rate: float, seed: int = 0) -> dict:
        """Return the row of one run, measured unless it is recorded."""
        key = {**cell.key(), "learning_rate": learning_rate, "seed": seed}
        return self.study.measure(lambda: one_run(cell, learning_rate, seed), **key)

    def choose(self, cell: Cell) -> float:
        """Climb on seed 0, run the chosen rate on the other seeds, and return it."""
        chosen = search_learning_rate(lambda rate: self.run(cell, rate), LADDER, cell.first)[
            "learning_rate"
        ]
        for seed in (1, 2):
            self.run(cell, chosen, seed)
        return chosen

    def generate(self, cell: Cell, learning_rate: float) -> None:
        """Generate with three seeds, greedily and by beams."""
        for seed in (0, 1, 2):
            key = {**cell.key(), "learning_rate": learning_rate, "seed": seed, "decoding": True}
            self.study.measure(lambda s=seed: decoded(cell, learning_rate, s), **key)

    def every_rate(self, cell: Cell) -> None:
        """Run the rates that seed 0 has tried on the other seeds too."""
        tried = {row["learning_rate"] for row in self.study.find(**cell.key(), seed=0)}
        for learning_rate in sorted(tried):
            for seed in (1, 2):
                self.run(cell, learning_rate, seed)


def main() -> None:
    """Run what is not in the record yet."""
    torch.set_num_threads(1)
    session.quiet()
    search = Search(Study(data_dir() / "results" / "prefix_study.json"))
    for cell in WINDOWS:
        chosen = search.choose(cell)
        if cell.role == "seq2seq":
            search.generate(cell, chosen)
    for cell in (*FACTS, *STARTS, *LENGTHS):
        search.choose(cell)
    for cell in WINDOWS:
        search.every_rate(cell)


if __name__ == "__main__":
    main()
