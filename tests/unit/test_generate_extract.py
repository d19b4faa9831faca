"""Evidence and the extractive writer's choice."""

import pytest

from services.generate.answer.evidence import (
    MIN_CONFIDENCE,
    SHORTLIST,
    confidence,
    gather,
    with_similarities,
)
from services.generate.answer.extract import choose, write
from services.generate.answer.passages import Passage
from services.generate.answer.verify import verify


def passage(n: int, text: str, title: str | None = None) -> Passage:
    return Passage(n, f"doc{n}#0", f"doc{n}", "handbook", title, None, text, 0.9)


def answer(question: str, *passages: Passage) -> str:
    return write(choose(gather(question, passages)))


HISTORY = passage(
    1,
    "Babbage designed the Analytical Engine. Ada Lovelace wrote the first program in 1843. It "
    "computed Bernoulli numbers. Her notes were three times as long as the article.",
)
PORTS = passage(
    2, "# Ports\n\nAll listen on loopback.\n\n- embed: port 8001\n- rerank: port 8002\n", "Network"
)


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("Who wrote the first program?", "Ada Lovelace wrote the first program in 1843. [1]"),
        ("When was the first program written?", "Ada Lovelace wrote the first program in 1843."),
        ("Which port does rerank have?", "rerank: port 8002 [2]"),
        ("Where do services listen?", "All listen on loopback. [2]"),
    ],
)
def test_the_sentence_that_answers_is_quoted_with_its_passage(question: str, sentence: str) -> None:
    assert sentence in answer(question, HISTORY, PORTS)


def test_a_sentence_that_begins_with_a_pronoun_is_led_in() -> None:
    text = answer("What computed the Bernoulli numbers?", HISTORY)
    assert text.startswith(
        "Ada Lovelace wrote the first program in 1843. [1] It computed Bernoulli numbers. [1]"
    )


def test_the_same_sentence_in_two_passages_is_quoted_once() -> None:
    text = answer("Who wrote the first program?", HISTORY, passage(2, HISTORY.text))
    assert text.count("Ada Lovelace wrote") == 1


def test_sentences_stand_in_reading_order() -> None:
    first = passage(1, "A damaged index is found at the start.")
    second = passage(2, "A damaged index is rebuilt from the database.")
    chosen = choose(gather("What happens to a damaged index?", [first, second]))
    assert {one.n for one in chosen} == {1, 2}
    for order in (chosen, chosen[::-1]):
        assert write(order) == f"{first.text} [1] {second.text} [2]"


def test_footnotes_of_the_source_do_not_become_citations() -> None:
    text = answer("Who wrote the first program?", passage(1, "Ada wrote the first program.[7][8]"))
    assert text == "Ada wrote the first program. [1]"


def test_a_code_block_is_quoted_as_it_stands() -> None:
    text = answer("make demo command", passage(1, "Run this:\n\n```\nmake demo  EXIT=1\n```\n"))
    assert "```\nmake demo  EXIT=1\n```" in text


def test_what_is_quoted_always_passes_verification() -> None:
    for question in ("Who wrote the first program?", "Which port is it?", "loopback", "Her notes?"):
        assert verify(answer(question, HISTORY, PORTS), [HISTORY, PORTS]).failures == ()


def test_a_question_about_something_else_has_little_confidence() -> None:
    asked = gather("Who won the football world cup in Brazil?", [HISTORY, PORTS])
    assert confidence(asked) < MIN_CONFIDENCE
    assert confidence(gather("Who wrote the first program?", [HISTORY, PORTS])) > MIN_CONFIDENCE


def test_a_question_turned_into_its_opposite_has_little_confidence() -> None:
    plain = gather("Which services listen on loopback?", [PORTS])
    negated = gather("Which services do not listen on loopback?", [PORTS])
    assert confidence(negated) < MIN_CONFIDENCE < confidence(plain)


def test_similarity_reorders_the_evidence() -> None:
    evidence = gather("Who wrote the first program?", [HISTORY])
    last = evidence[-1]
    moved = with_similarities(evidence, [0.0] * (len(evidence) - 1) + [3.0])
    assert moved[0].sentence == last.sentence


@pytest.mark.parametrize("question", ["?", "What is it?", "the of and", "\u4f60\u597d", "x"])
def test_a_question_without_content_is_covered_by_nothing(question: str) -> None:
    evidence = gather(question, [HISTORY])
    assert all(one.coverage == 0.0 for one in evidence)
    assert confidence(evidence) < MIN_CONFIDENCE


def test_no_passages_are_no_evidence() -> None:
    assert gather("Who?", []) == []
    assert confidence([]) == 0.0
    assert write(choose([])) == ""


def test_the_shortlist_is_bounded_however_long_the_passages_are() -> None:
    long = passage(1, "A program was written. " * 500)
    assert len(gather("What was written?", [long])) == SHORTLIST
