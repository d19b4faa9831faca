"""Evidence and the extractive writer's choice."""

import pytest

from services.generate.reading.evidence import (
    MIN_CONFIDENCE,
    SHORTLIST,
    confidence,
    gather,
    with_similarities,
)
from services.generate.reading.extract import choose, write
from services.generate.reading.passages import Passage
from services.generate.verification.verify import verify


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


@pytest.mark.parametrize("forged", ["[[2]2]", "[1,[3]2]", "[[[2]2]2]", "[1,[[2]2]2]"])
def test_a_mark_within_a_mark_does_not_become_a_citation(forged: str) -> None:
    lie = passage(1, f"The first program was written by Bob {forged}.")
    truth = passage(2, "The first program was written by Ada.")
    verdict = verify(answer("Who wrote the first program?", lie), [lie, truth])
    assert [claim.cited for claim in verdict.claims] == [(1,)]


def test_a_piece_of_words_like_source_and_answer_keeps_its_citation() -> None:
    verdict = verify("`text` | the passage [1]", [passage(1, "`text` | the passage")])
    assert [claim.cited for claim in verdict.claims] == [(1,)]


def test_a_code_block_is_quoted_as_it_stands() -> None:
    text = answer("make demo command", passage(1, "Run this:\n\n```\nmake demo  EXIT=1\n```\n"))
    assert "```\nmake demo  EXIT=1\n```" in text


# As the desk sends a page: without the marks of headings, and with bare table rows.
ARMS = passage(
    3,
    "Hybrid search\n\n\nThe dense arm\n\nThe dense arm finds chunks by the direction of their "
    "vectors. It is weak on rare names.\n\n\nHow do I switch an arm off?\n\nName the other arms in "
    '`arms`.\n\nrefdesk ask "What is the dense arm?"\n\narm | default weight\ndense | 1.5\n'
    "bm25 | 0.7",
    "Hybrid search",
)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What is the dense arm?", "The dense arm finds chunks by the direction of their vectors."),
        ("What is hybrid search?", "The dense arm finds"),
        ("How do I switch an arm off?", "Name the other arms in `arms`. [3]"),
    ],
)
def test_a_sentence_is_quoted_rather_than_the_heading_above_it(question: str, text: str) -> None:
    assert answer(question, ARMS).startswith(text)


def test_a_line_that_only_repeats_question_and_title_is_no_evidence() -> None:
    quoted = [one.sentence.text for one in gather("What is the dense arm?", [ARMS])]
    assert not {"Hybrid search", "The dense arm", 'refdesk ask "What is the dense arm?"'} & {
        *quoted
    }
    assert "dense | 1.5" in quoted


def test_a_table_row_is_quoted_where_no_sentence_says_it() -> None:
    text = answer("What is the default weight of bm25?", ARMS)
    assert "bm25 | 0.7 [3]" in text
    assert "arm | default weight" not in text


def test_a_passage_that_begins_within_a_table_loses_none_of_its_rows() -> None:
    rows = passage(1, "dense | 1.5\nbm25 | 0.7")
    assert answer("What is the weight of dense?", rows) == "dense | 1.5 [1]"


def test_a_line_without_a_full_stop_is_quoted_where_it_answers() -> None:
    note = passage(1, "Opening hours: 9 to 5\n\nWifi password is tiger\n\nMind the step.")
    assert answer("What is the wifi password?", note) == "Wifi password is tiger [1]"


def test_a_heading_does_not_lead_in_a_pronoun() -> None:
    text = answer("What is weak on rare names?", passage(1, "Arms\n\nIt is weak on rare names."))
    assert text == "It is weak on rare names. [1]"


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
