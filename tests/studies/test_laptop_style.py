"""How the laptop study tells a right answer to a general question."""

from pefthelpers import data
from studies.laptop_style_study import is_right


def test_a_reference_answer_is_right_and_no_question_gives_it_away():
    for question in data.general_questions().measured:
        assert is_right(question.answer, question)
        assert not is_right(question.prompt, question)


def test_is_right_wants_whole_words():
    question = data.Question("How many sides has a square?", "Four.", ("four", "4"))
    assert is_right("It has FOUR sides.", question)
    assert not is_right("It has fourteen sides, or 40.", question)
