"""How a prefix must be trained, and what it cannot be taught, on the kitchen models: for notebook 04.

Run: python -m studies.prefix_study     (resumable; about 25 CPU minutes)

Four questions, each a list of cells below. A cell is a task, a way to make the virtual tokens
(``kind``), their number and the training steps. Each cell climbs a ladder of learning rates on seed
0, going on while the best on validation is at the edge, and runs the chosen one on seeds 1 and 2.
Test figures are read at the chosen rate only. ``windows`` runs every rate of the ladder, so that one
sees how wide the window of rates is that work.
"""

from functools import cache

import torch
from peft import (
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
    initialize_kv_prefix_from_past_key_values,
    initialize_kv_prefix_from_text,
)

from pefthelpers import kitchen, measure, models
from pefthelpers.models import folder_of
from pefthelpers.profiles import settings
from pefthelpers.training import fit, is_seq2seq
from studies import engine
from studies.engine import Cell, Study
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


def cell(role: str, task: str, kind: str, tokens: int, steps: int, first: tuple[int, ...]) -> Cell:
    """Return a line of the tables below."""
    key = {"role": role, "task": task, "kind": kind, "tokens": tokens, "steps": steps}
    return Cell(key, LADDER, first)


PROJECTED, DIRECT = (0, 1, 2, 3, 4, 5), (2, 3, 4, 5, 6, 7, 8)
WINDOWS = [
    cell("decoder", "elicit", "projection", 8, 100, PROJECTED),
    cell("decoder", "elicit", "random", 8, 100, DIRECT),
    cell("seq2seq", "elicit", "projection", 30, 100, PROJECTED),
    cell("seq2seq", "elicit", "random", 30, 100, DIRECT),
]
STARTS = [
    cell("decoder", "elicit", "zero", 8, 100, DIRECT),
    cell("decoder", "elicit", "real K/V", 8, 100, DIRECT),
    cell("decoder", "elicit", "cue", 8, 100, DIRECT),
    cell("seq2seq", "elicit", "zero", 30, 100, DIRECT),
    cell("seq2seq", "elicit", "real K/V", 30, 100, DIRECT),
    cell("decoder", "elicit", "prompt, random", 8, 100, (4, 5, 6)),
    cell("decoder", "elicit", "prompt, cue", 8, 100, (2, 3, 4)),
]
LENGTHS = [
    cell("decoder", "elicit", "projection", tokens, 100, (2, 3, 4)) for tokens in (1, 2, 4, 16, 32)
]
FACTS = [
    cell("decoder", "learn", "projection", 8, 200, (3, 4)),
    cell("decoder", "learn", "random", 8, 200, (6, 7)),
    cell("decoder", "learn", "projection", 8, 800, (3, 4)),
    cell("decoder", "learn", "random", 8, 800, (6, 7)),
    cell("decoder", "learn", "random", 64, 300, (6, 7)),
]


@cache
def base_text(tokenizer, count: int) -> torch.Tensor:
    """Return the first ``count`` ids of plain summaries, (1, count): what a T5 decoder has written."""
    text = " ".join(example.answer for example in summary_tasks.summaries(10, seed=1))
    return tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[:, :count]


def start_from_text(model, tokenizer, kind: str, tokens: int) -> None:
    """Set a prefix to the keys and values that the base computes for a text."""
    if not is_seq2seq(model):
        text = TEXTS[kind]
        initialize_kv_prefix_from_text(model, tokenizer, text=text, use_chat_template=False)
        return
    with torch.no_grad(), model.disable_adapter():
        question = tokenizer(summary_tasks.elicit().train[0].prompt, return_tensors="pt")
        seen = model(**question, decoder_input_ids=base_text(tokenizer, tokens))
    cache = seen.past_key_values.self_attention_cache
    initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)


def adapt(role: str, kind: str, tokens: int, seed: int):
    """Load a base and put virtual tokens on it; return model and tokenizer."""
    model, tokenizer = models.load(role)
    torch.manual_seed(seed)
    task_type = "SEQ_2_SEQ_LM" if role == "seq2seq" else "CAUSAL_LM"
    common = {"task_type": task_type, "num_virtual_tokens": tokens}
    if kind.startswith("prompt"):
        text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXTS["cue"]}
        text["tokenizer_name_or_path"] = folder_of(role, settings(role))
        random = {"prompt_tuning_init": "RANDOM"}
        config = PromptTuningConfig(**common, **(text if "cue" in kind else random))
        return get_peft_model(model, config), tokenizer
    width = model.config.hidden_size
    config = PrefixTuningConfig(
        **common,
        prefix_projection=kind == "projection",
        encoder_hidden_size=width,
        init_weights="zero" if kind == "zero" else None,
    )
    model = get_peft_model(model, config)
    if kind in TEXTS:
        start_from_text(model, tokenizer, kind, tokens)
    return model, tokenizer


def trained(role, task, kind, tokens, steps, learning_rate, seed):
    """Train one set of virtual tokens; return model, tokenizer and the task."""
    data = TASKS[role, task](seed)
    model, tokenizer = adapt(role, kind, tokens, seed)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    return model, tokenizer, data


def one_run(**run) -> dict:
    """Train one set of virtual tokens; return its size and what it reaches."""
    model, tokenizer, data = trained(**run)
    row = {
        "trained": measure.count_parameters(model)[0],
        "saved": model.get_prompt_embedding_to_save("default").numel(),
        "validation": measure.exact_match(model, tokenizer, data.validation),
        "validation_loss": measure.mean_loss(model, tokenizer, data.validation),
        "test": measure.exact_match(model, tokenizer, data.test),
    }
    if run["task"].startswith("learn"):
        row["facts"], row["format"] = measure.token_match(model, tokenizer, data.test, TOPPINGS)
    return {name: round(value, 4) for name, value in row.items()}


def decoded(**run) -> dict:
    """Train once more; return the share of test answers generated exactly, greedily and by beams."""
    model, tokenizer, data = trained(**run)
    wanted = [example.answer for example in data.test]
    shares = {}
    for name, beams in (("greedy", 1), ("four_beams", 4)):
        texts = measure.generate(model, tokenizer, data.test, num_beams=beams)
        shares[name] = round(sum(map(str.__eq__, texts, wanted)) / len(wanted), 4)
    return shares


def generate(study: Study, table: list[Cell], rates: list[float]) -> None:
    """Generate with three seeds at the chosen rate, where a window is the T5's."""
    for (key, _, _), rate in zip(table, rates, strict=True):
        for seed in (0, 1, 2) if key["role"] == "seq2seq" else ():
            run = {**key, "learning_rate": rate, "seed": seed}
            study.measure(lambda run=run: decoded(**run), **run, decoding=True)


def every_rate(study: Study, table: list[Cell]) -> None:
    """Run the rates that seed 0 has tried on the other seeds too."""
    for key, _, _ in table:
        tried = {row["learning_rate"] for row in study.find(**key, seed=0)}
        for learning_rate in sorted(tried):
            for seed in (1, 2):
                study.one(one_run, key, learning_rate, seed)


def main() -> None:
    """Run what is not in the record yet."""
    study = engine.start("prefix_study")
    table = WINDOWS + FACTS + STARTS + LENGTHS
    rates = study.tune(table, one_run, seeds=(1, 2))
    generate(study, WINDOWS, rates[: len(WINDOWS)])
    every_rate(study, WINDOWS)
    study.print_table(table, rates)


if __name__ == "__main__":
    main()
