"""What speaks for and against a sentence as the answer to a question."""

import pytest

from services.generate.reading.alignment import Alignment, Around, align, present, read, take_apart
from services.generate.reading.evidence import (
    Evidence,
    confidence,
    gather,
    signs,
    with_similarities,
)
from services.generate.reading.passages import Passage
from services.generate.reading.words import weights


def seen(question: str, sentence: str, before: str = "") -> Alignment:
    """The alignment of a sentence that stands alone in its passage, but for the one before it."""
    asked, words, lead = take_apart(question), read(sentence), read(before)
    passage = words.terms | lead.terms
    return align(
        asked,
        words,
        Around(
            weights([words.terms, lead.terms]),
            (lead,),
            present(asked.terms, passage),
        ),
    )


def evidence(question: str, text: str) -> list[Evidence]:
    return gather(question, [Passage(1, "d#0", "d", "c", None, None, text, 0.8)])


def test_another_form_of_a_word_counts_as_akin() -> None:
    found = seen("When was Iceland expanded?", "The expansion of Iceland began in 900.")
    assert found.akin == 1.0
    assert present(frozenset({"comput"}), {"compani"}) == frozenset()


def test_the_sentence_before_counts_as_context_alone() -> None:
    text = "Somebody wrote the first program. It was Ada."
    last = min(evidence("Who wrote the first program?", text), key=lambda one: one.coverage)
    assert (last.coverage, last.alignment.akin) == (0.0, 0.0)
    assert (last.context, last.alignment.scattered) == (1.0, 0.0)


def test_words_that_stand_elsewhere_in_the_passage_are_scattered() -> None:
    text = "Somebody wrote the first program. Then it rained. Ada wrote a letter."
    found = {one.sentence.text: one for one in evidence("Who wrote the first program?", text)}
    assert found["Ada wrote a letter."].alignment.scattered > 0.5
    assert found["Somebody wrote the first program."].alignment.scattered == 0.0


def test_words_far_apart_are_not_near() -> None:
    between = "which " + "and so on ever " * 10
    close = seen("Who built the bridge?", "Eiffel built the bridge.")
    far = seen("Who built the bridge?", f"Eiffel built a tower, {between} near a bridge.")
    assert close.near == 1.0 > far.near


@pytest.mark.parametrize(
    ("question", "focus"),
    [
        ("What river runs through Paris?", {"river", "run", "pari"}),
        ("What is the capital of France?", {"capit"}),
        ("In which year did the war end?", set()),
        ("How many ships sank?", {"ship", "sank"}),
        ("who", set()),
        ("Ships", set()),
    ],
)
def test_the_focus_stands_beside_the_interrogative(question: str, focus: set[str]) -> None:
    assert take_apart(question).focus == focus


@pytest.mark.parametrize(
    ("question", "sentence", "feature"),
    [
        ("When did Bob leave Rome?", "Ada left Rome in 1843.", "names"),
        ("Who won in 1844?", "Ada won in 1843.", "numbers"),
        ("What is the largest port?", "Hull is a large port.", "qualifiers"),
        ("Who did not sign?", "Ada signed.", "negated"),
        ("Who did not sign without keys?", "Ada signed without keys.", "negated"),
        ("Who signed?", "Ada never signed.", "denied"),
        ("Who failed to sign?", "Ada managed to sign.", "denials"),
        ("What increases the pressure?", "Cold decreases the pressure.", "opposite"),
        ("Which states are unstable?", "Some states are stable.", "opposite"),
        ("Which states are stable?", "Some states are unstable.", "opposite"),
    ],
)
def test_what_speaks_against_a_sentence_is_counted(
    question: str, sentence: str, feature: str
) -> None:
    assert getattr(seen(question, sentence), feature) == 1.0
    assert getattr(seen(sentence, sentence), feature) == 0.0


@pytest.mark.parametrize(
    ("question", "sentence", "fits"),
    [
        ("When did it end?", "It ended in 1843.", 1.0),
        ("When did the war of 1843 end?", "The war of 1843 ended soon.", -1.0),
        ("How many ships sank?", "Two ships sank.", 1.0),
        ("How many ships sank?", "The ships sank.", -1.0),
        ("Who met Ada?", "Then Ada met Charles.", 1.0),
        ("Who met Ada?", "Then Ada met nobody.", -1.0),
        ("What sank?", "The ships sank.", 0.0),
    ],
)
def test_a_sentence_fits_if_it_holds_something_new_of_the_kind(
    question: str, sentence: str, fits: float
) -> None:
    assert [one.fits for one in evidence(question, sentence)] == [fits]


TRUTH = "Ada Lovelace wrote the first program for the Analytical Engine in 1843."


@pytest.mark.parametrize(
    "twisted",
    [
        "Who did not write the first program for the Analytical Engine?",
        "Who wrote the last program for the Analytical Engine?",
        "Who wrote the first program for the Difference Machine?",
        "Who wrote the first program for the Analytical Engine in 1871?",
    ],
)
def test_a_twisted_question_gets_less_confidence_than_the_straight_one(twisted: str) -> None:
    straight = "Who wrote the first program for the Analytical Engine in 1843?"
    assert confidence(evidence(twisted, TRUTH)) < confidence(evidence(straight, TRUTH))


def test_the_signs_name_the_similarity_only_where_it_is_known() -> None:
    found = evidence("Who wrote it?", TRUTH)
    assert "similarity" not in signs(found)
    assert signs(with_similarities(found, [0.5]))["similarity"] == 0.5
