"""What becomes of a small chef who learns what guests prefer, for notebook 09: rewards, DPO, GRPO, PPO.

    python -m studies.preference_study           # the kitchen decoder; about 40 CPU minutes
    pefthelpers fetch laptop
    python -m studies.preference_study smollm2   # SmolLM2-135M; about 30 CPU minutes

The losses and loops are notebook 09's own cells, executed here. Rates are chosen on seed 0 by validation
(the lowest that ties), then run on three seeds. One row a run in ``data/results/preference_kitchen.json``
or ``preference_smollm2.json``, resumable, float32, one thread. ``curve`` holds what was measured on the
way, a list a measure. A guest wants one full sentence with the right fact: neither the shortest answer nor
the longest wins.
"""

import functools
import random
import re
import sys
import types

import torch

from nbregress import notebooks
from pefthelpers import data, kitchen, models, results
from pefthelpers.measure import mean_loss
from pefthelpers.paths import data_dir
from pefthelpers.training import collate
from studies import engine

SEEDS = (0, 1, 2)
KINDS = ("shorter", "longer", "wrong")
# Held-out pairs that are judged; held-out questions that are asked while a policy learns.
COUNTS = {"tiny": {"validation": 120, "test": 360}, "laptop": {"validation": 24, "test": 45}}
LOOKS = {"tiny": 100, "laptop": 32}
BETA = 0.1  # of DPO


@functools.cache
def nine() -> types.SimpleNamespace:
    """Return what notebook 09 imports and defines."""
    (path,) = notebooks.find(["09"])
    named = [c for c in notebooks.read(path).cells if re.match("imports$|define-", c.id)]
    namespace = {"SEED": 0, "PROFILE": "tiny"}
    exec("\n".join(cell.source for cell in named), namespace)  # noqa: S102 - our own notebook
    engine.quiet_on_one_thread()
    return types.SimpleNamespace(**namespace)


class Table:
    """What the guests of a model ask, want and say: the kitchen's, or SmolLM2's general questions."""

    def __init__(self, profile: str) -> None:
        """Load the model that starts, its questions and pairs."""
        self.profile, book = profile, nine()
        if profile == "tiny":
            task, kept = kitchen.elicit(0), kitchen.retention()
            base, self.tokenizer = models.load("decoder")
            torch.manual_seed(0)
            self.start = book.make_house(base, self.tokenizer, task.train, random.Random(0))
            self.parts = {"train": task.train, "validation": task.validation, "test": task.test}
            self.pairs = {name: book.pairs_of(part, 0) for name, part in self.parts.items()}
            self.guest, self.other = book.guest, kept["documents"]
            self.true = lambda example, text: book.meant(example)["value"] in text
        else:
            self.start, self.tokenizer = models.load("decoder", profile, dtype="float32")
            rows = [r for r in read_questions() if r["keywords"][0] in r["answer"]]
            chat = functools.partial(data.chat_examples, self.tokenizer)
            examples = chat([data.Example(r["question"], r["answer"]) for r in rows])
            self.keys = {e.prompt: r["keywords"][0] for e, r in zip(examples, rows, strict=True)}
            train = [e for e, r in zip(examples, rows, strict=True) if r["split"] == "replay"]
            rest = [e for e, r in zip(examples, rows, strict=True) if r["split"] == "measure"]
            rest = random.Random(0).sample(rest, len(rest))
            self.parts = {"train": train, "validation": rest[:40], "test": rest[40:]}
            self.pairs = {name: self.general_pairs(part) for name, part in self.parts.items()}
            self.other = chat(data.pizza().test[::2])
            self.guest = lambda e, text: sentence_with(text, self.keys[e.prompt])
            self.true = lambda e, text: self.keys[e.prompt] in text

    def general_pairs(self, examples) -> list[dict]:
        """Pair the reference answer with its bare fact, with chatter behind it, and with a wrong fact."""
        rng, found = random.Random(0), []
        for e in examples:
            key = self.keys[e.prompt]
            others = [o for o in examples if self.keys[o.prompt] != key]
            alike = [o for o in others if o.answer[:12] == e.answer[:12]]  # another capital …
            wrong = e.answer.replace(key, self.keys[rng.choice(alike or others).prompt])
            tail = rng.choice((" I hope this helps!", " Do you have another question?"))
            for kind, worse in (
                ("shorter", key + "."),
                ("longer", e.answer + tail),
                ("wrong", wrong),
            ):
                row = {"prompt": e.prompt, "chosen": e.answer, "rejected": worse, "kind": kind}
                found.append(row)
        return rng.sample(found, len(found))

    def rule(self, asked, pairs, texts) -> torch.Tensor:
        """Return the true reward of each answer."""
        return torch.tensor([self.guest(e, text) for e, text in zip(asked, texts, strict=True)])

    def words(self, asked, pairs, texts) -> torch.Tensor:
        """Return what notebook 09's rule with a hole pays."""
        return torch.tensor([nine().by_words(e, x) for e, x in zip(asked, texts, strict=True)])

    def longer_wins(self, rows) -> float:
        """Return the accuracy of choosing the longer answer; a tie is half."""
        sides = nine().sides(self.tokenizer, rows)
        sizes = [[len(answer) for _, answer in side] for side in sides]
        return sum((c > r) + 0.5 * (c == r) for c, r in zip(*sizes, strict=True)) / len(rows)

    @torch.no_grad()
    def look(self, staff, part: str, count: int) -> dict:
        """Draw an answer to held-out questions: is the guest content, how far is the reference?"""
        book, examples = nine(), self.parts[part][:count]
        state = torch.random.get_rng_state()
        torch.manual_seed(1000)
        staff.model.set_adapter("policy")
        pairs, texts = book.sample(staff.model, self.tokenizer, examples)
        torch.random.set_rng_state(state)
        batch = collate(self.tokenizer, pairs)
        drift = book.log_probs(staff.model, batch) - book.reference_log_probs(staff.model, batch)
        share = lambda judge: sum(map(judge, examples, texts)) / len(texts)
        return {
            "guest": share(self.guest),
            "fact": share(self.true),
            "kl": drift.sum(1).mean().item(),
            "tokens": sum(len(answer) for _, answer in pairs) / len(pairs),
            "general_loss": mean_loss(staff.model, self.tokenizer, self.other[:40]),
            "sample": texts[0],
        }


def read_questions() -> list[dict]:
    """Return the rows of the general questions, their keywords among them."""
    fields = ("split", "question", "answer", "keywords")
    return data.json_lines(data_dir() / "general" / "questions.jsonl", fields)


def sentence_with(text: str, key: str) -> float:
    """Return 1.0 for one full sentence of at least four words with the right fact, else 0.0."""
    whole = re.fullmatch(r"[A-Z][^.!?\n]*\.", text)
    return float(bool(whole) and key in text and text.count(" ") >= 3)


def by_kind(rows: list[dict], right: torch.Tensor) -> dict:
    """Return the accuracy on all rows and on each kind."""
    kinds = [row["kind"] for row in rows]
    each = {kind: right[[k == kind for k in kinds]].float().mean().item() for kind in KINDS}
    return {"accuracy": right.float().mean().item(), "pairs": len(rows)} | each


def in_parts(score, rows: list[dict], size: int = 64) -> torch.Tensor:
    """Score rows in parts without a gradient: (len(rows),)."""
    with torch.no_grad():
        return torch.cat([score(rows[i : i + size]) for i in range(0, len(rows), size)])


@functools.cache
def table(profile: str) -> Table:
    """Return the table of a profile, made once."""
    return Table(profile)


def staff_of(t: Table, seed: int, *roles: str):
    """Return a policy and other roles on one base, drawn from a seed."""
    torch.manual_seed(seed)
    return nine().Staff(t.start, ("policy", *roles))


def reward_model(t: Table, learning_rate: float, seed: int, *, steps: int, size: int = 16):
    """Train a reward adapter on preference rows."""
    staff = staff_of(t, seed, "reward")
    options = {"learning_rate": learning_rate, "steps": steps, "size": size, "seed": seed}
    nine().train_reward(staff, t.tokenizer, t.pairs["train"], **options)
    return staff


def run_reward(profile: str, learning_rate: float, seed: int, steps: int, size: int, **_) -> dict:
    """Train a reward model; return its accuracy on held-out pairs, by kind."""
    t, book = table(profile), nine()
    staff = reward_model(t, learning_rate, seed, steps=steps, size=size)
    score = lambda rows: torch.sub(
        *(book.reward_of(staff, t.tokenizer, side) for side in book.sides(t.tokenizer, rows))
    )
    judged = {p: in_parts(score, t.pairs[p][:count]) > 0 for p, count in COUNTS[profile].items()}
    found = {p: by_kind(t.pairs[p][: len(right)], right) for p, right in judged.items()}
    longer = t.longer_wins(t.pairs["test"][: COUNTS[profile]["test"]])
    return found["test"] | {"validation": found["validation"]["accuracy"], "longer_wins": longer}


@torch.no_grad()
def sums(t: Table, model, part: str) -> torch.Tensor:
    """Return ln p of each held-out answer of a split: (2, pairs), chosen and rejected."""
    rows, book = t.pairs[part][: COUNTS[t.profile][part]], nine()
    halves = [rows[start : start + 64] for start in range(0, len(rows), 64)]
    sides = [
        [book.log_probs(model, collate(t.tokenizer, side)).sum(1) for side in pair]
        for pair in (book.sides(t.tokenizer, half) for half in halves)
    ]
    return torch.stack([torch.cat(side) for side in zip(*sides, strict=True)])


@functools.cache
def reference_sums(profile: str, part: str) -> torch.Tensor:
    """Return the same of the model that training starts from: once for all runs."""
    return sums(table(profile), table(profile).start, part)


def run_dpo(profile: str, learning_rate: float, seed: int, steps: int, size: int, **_) -> dict:
    """Train by DPO; return margins and accuracy on held-out pairs, and what the policy says."""
    t = table(profile)
    staff = staff_of(t, seed)
    options = {"learning_rate": learning_rate, "steps": steps, "size": size, "seed": seed}
    nine().train_dpo(staff, t.tokenizer, t.pairs["train"], beta=BETA, **options)
    staff.model.set_adapter("policy")
    margins = {}
    for part in COUNTS[profile]:
        gained = sums(t, staff.model, part) - reference_sums(profile, part)
        margins[part] = BETA * (gained[0] - gained[1])
        row = by_kind(t.pairs[part][: len(margins[part])], margins[part] > 0)
    row |= {
        "chosen_gain": gained[0].mean().item(),  # of the test: nats an answer
        "margin": margins["test"].mean().item(),
        "validation": (margins["validation"] > 0).float().mean().item(),
        "validation_margin": margins["validation"].mean().item(),
    }
    if profile == "tiny":
        return row | t.look(staff, "test", LOOKS[profile])
    return row | {"general_loss": mean_loss(staff.model, t.tokenizer, t.other[:10])}


def run_rl(
    profile: str,
    method: str,
    learning_rate: float,
    seed: int,
    steps: int,
    beta: float,
    reward: str = "rule",
    every: int = 8,
    **_,
) -> dict:
    """Train by GRPO or PPO on the guests' rule, or on one that also pays for words."""
    t, book = table(profile), nine()
    staff = staff_of(t, seed, *(["value"] if method == "ppo" else []))
    judge = t.rule if reward == "rule" else t.words
    curve, scores = [], []

    def counted(asked, pairs, texts):
        found = judge(asked, pairs, texts)
        scores.append(found.mean().item())
        return found

    def watch(step):
        if step % every == 0:
            curve.append({"step": step} | t.look(staff, "test", LOOKS[profile]))

    train = {"grpo": book.train_grpo, "ppo": book.train_ppo}[method]
    options = {"learning_rate": learning_rate, "steps": steps, "beta": beta, "seed": seed}
    train(staff, t.tokenizer, t.parts["train"], counted, **options, watch=watch)
    curve.append({"step": steps} | t.look(staff, "test", LOOKS[profile]))
    row = {name: [point[name] for point in curve] for name in curve[0]}
    last = t.look(staff, "validation", LOOKS[profile])
    return {"validation": last["guest"], "curve": row, "rewards": scores} | curve[-1]


def by_rates(study, method: str, run, ladder: tuple[float, ...], **about) -> None:
    """Run a method at each rate on seed 0, and at the lowest that ties on the other seeds."""
    key = {"method": method, **about}
    measure = lambda method, **options: run(**options)
    rows = [study.one(measure, key, rate) for rate in ladder]
    rate = results.mildest(rows)["learning_rate"]
    for seed in SEEDS[1:]:
        study.one(measure, key, rate, seed)


def smollm2() -> None:
    """Run the real model's part."""
    study = engine.start("preference_smollm2")
    about = {"profile": "laptop", "steps": 16, "size": 2}
    by_rates(study, "dpo", run_dpo, (5e-4, 2e-3), **about)
    by_rates(study, "reward", run_reward, (5e-4, 2e-3), **about)


def decoder() -> None:
    """Run the kitchen's part."""
    study = engine.start("preference_kitchen")
    about = {"profile": "tiny"}
    rl = lambda method: lambda **options: run_rl(method=method, **options)
    rule, words = {"reward": "rule"}, {"reward": "words"}
    by_rates(study, "grpo", rl("grpo"), (5e-4, 1e-3), **about, **rule, steps=24, beta=0.0)
    by_rates(study, "ppo", rl("ppo"), (1e-3,), **about, **rule, steps=24, beta=0.02)
    by_rates(study, "dpo", run_dpo, (5e-4, 1e-3), **about, steps=40, size=8)
    by_rates(study, "reward", run_reward, (5e-4, 1e-3), **about, steps=40, size=8)
    # Cheating takes longer: at half this rate 24 steps raised the pay, and the guests had not noticed yet.
    by_rates(study, "grpo", rl("grpo"), (1e-3,), **about, **words, steps=24, beta=0.0)
    by_rates(study, "grpo", rl("grpo"), (2e-3,), **about, **words, steps=40, beta=0.0)


def main() -> None:
    """Run what is not in the record yet."""
    smollm2() if sys.argv[1:] == ["smollm2"] else decoder()


if __name__ == "__main__":
    main()
