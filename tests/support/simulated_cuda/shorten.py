"""A notebook in a minute: every training is cut to a few steps, every measurement to a few examples.

What is learned means nothing then: an assert about it has to be named in ``test_on_a_gpu``.
"""

import dataclasses
from itertools import islice

import transformers

from pefthelpers import classification, measure, profiles, training

STEPS, EXAMPLES, TOKENS = 4, 8, 6


def shorten() -> None:
    """Cut the profiles' steps, the training loops, the Trainer, and what is measured; for this process."""
    for roles in profiles.PROFILES.values():
        for role, chosen in roles.items():
            fewer = {"steps": STEPS, "test_examples": min(chosen.test_examples, 2 * EXAMPLES)}
            roles[role] = dataclasses.replace(chosen, **fewer)
    training.optimise = classification.optimise = _few_steps(training.optimise)
    batches = training.batches  # what a loop that stands in a notebook draws
    training.batches = lambda pairs, **form: islice(batches(pairs, **form), STEPS)
    for name in ("exact_match", "mean_loss", "token_match", "generate"):
        setattr(measure, name, _few_examples(getattr(measure, name)))
    evaluate = classification.evaluate
    classification.evaluate = lambda model, rows, **form: evaluate(model, rows[:64], **form)
    train = transformers.Trainer.train
    transformers.Trainer.train = lambda self, *args, **kwargs: train(_cut(self), *args, **kwargs)


def _few_steps(optimise):
    def run(model, inputs, *, steps, **form):
        return optimise(model, islice(inputs, STEPS), steps=min(steps, STEPS), **form)

    return run


def _few_examples(measured):
    def run(model, tokenizer, examples, *args, **form):
        if "max_new_tokens" in form:
            form["max_new_tokens"] = min(form["max_new_tokens"], TOKENS)
        return measured(model, tokenizer, examples[:EXAMPLES], *args, **form)

    return run


def _cut(trainer):
    trainer.args.max_steps, trainer.args.logging_steps = STEPS, 1
    return trainer
