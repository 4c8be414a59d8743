"""Checks of the exercises in notebook 02."""

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet


def first_gradient(answer) -> Verdict:
    """Check which of A and B has a gradient on the very first step."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    diagnoses = {
        "A": "The gradient of A is multiplied by B, and B is zero.",
        "both": "One of the two gradients is multiplied by the other factor, which is zero.",
        "neither": "Then nothing would ever move; that happens if A and B both start at zero.",
    }
    if answer == "B":
        return correct("dL/dA contains B, which is zero; dL/dB contains A, which is not.")
    return not_yet(diagnoses.get(answer, 'Answer "A", "B", "both" or "neither".'))


def largest_rank(answer, *, shapes: list[tuple[int, int]], budget_bytes: int) -> Verdict:
    """Check the largest r whose float32 adapter stays within a budget."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    per_rank = sum(d_in + d_out for d_in, d_out in shapes)
    right = budget_bytes // (4 * per_rank)
    if answer == right:
        return correct(f"One rank costs {4 * per_rank:,} bytes, {right} of them fit.")
    if answer == budget_bytes // per_rank:
        return not_yet("You count one byte per parameter; float32 has four.")
    if answer == budget_bytes // (2 * per_rank):
        return not_yet("Two bytes per parameter would be bfloat16; peft saves float32 here.")
    if isinstance(answer, float) and not answer.is_integer():
        return not_yet("A rank is a whole number: round down, or the file is too large.")
    if answer == right + 1:
        return not_yet("One too many: that file exceeds the budget. Round down.")
    return not_yet("A rank costs r (d_in + d_out) parameters per adapted layer, 4 bytes each.")


def labels(function) -> Verdict:
    """Check ``function(prompt, answer, length, pad)``: labels where padding and end are the same id."""
    prompt, answer, pad = [5, 6, 7], [8, 9, 2], 2  # the answer ends with id 2, which also pads
    result, verdict = call(function, prompt, answer, 8, pad)
    if verdict:
        return verdict
    result = list(result)
    if len(result) != 8:
        return not_yet(f"You return {len(result)} labels for a row of 8 positions.")
    if result == [-100, -100, -100, 8, 9, 2, -100, -100]:
        return correct("The loss sees the answer and its end, not the prompt, not the padding.")
    if result == [-100, -100, -100, 8, 9, -100, -100, -100]:
        return not_yet(
            "The end of the answer is masked with the padding: the model never learns to stop."
        )
    if result[:3] == prompt:
        return not_yet(
            "The prompt is in the loss: most of the gradient goes into repeating questions."
        )
    if result[6:] == [pad, pad]:
        return not_yet("Padding is in the loss: the model is paid for answering with padding.")
    return not_yet("Mask prompt and padding with -100, keep the answer and its end.")


def scale_for_rank(answer, *, measured: dict[str, float]) -> Verdict:
    """Check which alpha for r = 64 moves the function about as far as r = 8 with alpha = 16.

    Args:
        answer: the learner's alpha.
        measured: by rule (``constant``, ``2r``, ``sqrt``), the notebook's measured ratio of the
            first step's change at r = 64 over that at r = 8.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    if answer == 16:
        return correct(f"A constant alpha changes the step by ×{measured['constant']:.2f} only.")
    if answer == 128:
        return not_yet(f"alpha = 2r: this cell measured ×{measured['2r']:.1f}, not ×1.")
    if 44 <= answer <= 46:
        return not_yet(f"alpha ∝ sqrt(r), as in rsLoRA: measured ×{measured['sqrt']:.1f}.")
    return not_yet("Look at the figure: which rule gives the flattest line?")
