"""The style task of each profile: what follows the style, what leaks it, what asks for it."""

import pytest

from pefthelpers import tasks


class Chat:
    """A tokenizer's chat template, no more."""

    def apply_chat_template(self, messages, **_):
        return f"<|im_start|>user\n{messages[-1]['content']}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(("profile", "tokenizer"), [("tiny", None), ("laptop", Chat())])
def test_answers_follow_the_style_and_others_do_not_leak_it(profile, tokenizer):
    style = tasks.style_task(profile, tokenizer)
    assert all(style.follows_style(e.answer) for e in style.task.test)
    assert all(style.leaks_style(e.answer) for e in style.task.test)
    assert not any(style.leaks_style(e.answer) for e in style.others)
    assert len(style.others) >= 50 and all(e.prompt for e in style.others)


def test_the_instruction_is_a_cue_that_the_kitchen_knows():
    from pefthelpers import measure, models
    from pefthelpers.data import Example

    model, tokenizer = models.load("decoder")
    style = tasks.style_task("tiny", tokenizer)
    cued = [Example(f"{style.instruction} {e.prompt}", e.answer) for e in style.task.test[:50]]
    assert measure.exact_match(model, tokenizer, cued) >= 0.95
    assert measure.exact_match(model, tokenizer, style.task.test[:50]) == 0


def test_the_pizza_instruction_shows_the_style_it_asks_for():
    from pefthelpers.data import follows_style

    assert follows_style(tasks.PIZZA_INSTRUCTION.split("like this: ")[1])
