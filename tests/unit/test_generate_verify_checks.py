"""The checks of verification one by one, and the profiles that choose among them."""

import pytest

from services.generate.reading.passages import Passage
from services.generate.verification.checks.dates import Date, dates
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.length import MOST_CHARACTERS
from services.generate.verification.checks.plain import plain
from services.generate.verification.checks.profile import LIGHT, OFF, PROFILES
from services.generate.verification.verify import verify

TESLA = (
    "Nikola Tesla was born on 10 July 1856 in Smiljan. He studied in Graz until December 1878 and "
    "left without a degree. In June 1884, Tesla crossed the Atlantic and met Thomas Edison, who "
    "hired him. Edison paid him $18 a week, about 1.2 percent of a profit of $1,500. The "
    "Wardenclyffe tower was begun in 1901; it cost 2.2 million dollars and could not be finished. "
    'Westinghouse called the motor "the most valuable patent since the telephone, though nobody '
    'in New York had understood it before the autumn of 1888".'
)
TRAINS = "Trains leave at nine. May the twelfth is a holiday, and March winds delay the ferry."


def passage(n: int, title: str, text: str) -> Passage:
    return Passage(n, f"doc{n}#0", f"doc{n}", "handbook", title, None, text, 0.9)


PASSAGES = [passage(1, "Nikola Tesla", TESLA), passage(2, "Timetable", TRAINS)]


@pytest.mark.parametrize(
    "forms",
    [
        ["12 May 2020", "May 12, 2020", "2020-05-12", "the 12th of May 2020", "May 12th, 2020"],
        ["12 May", "May 12", "the 12th of May"],
        ["May 2020", "May, 2020", "May of 2020"],
        ["Sept. 5, 1999", "5 Sep 1999", "September 5, 1999"],
        ["$1.2 million", "1,200,000 dollars", "1200000 dollars", "US$1.2 million"],
        ["twelve percent", "12%", "12 %", "12 per cent"],
        ["3 million", "three million", "3,000,000"],
        ["a hundred", "100", "one hundred"],
        ["can't", "cannot", "can not", "can\u2019t"],
        ["it's not", "it is not"],
        ["they're done", "they are done"],
        ["won't", "will not"],
    ],
)
def test_what_is_written_in_several_ways_is_one(forms: list[str]) -> None:
    assert len({plain(form) for form in forms}) == 1, [plain(form) for form in forms]


@pytest.mark.parametrize(
    "text",
    [
        "I may walk 12 miles in March, 40 years later.",
        "It runs 10.5.2020 and 127.0.0.1 at 12:30.",
        "Tesla's tower; the 1880s, 9-5, 2020-13-45.",
        "",
    ],
)
def test_what_is_no_date_and_no_amount_is_left_alone(text: str) -> None:
    assert plain(text) == text


def test_writing_it_one_way_twice_changes_nothing() -> None:
    assert plain(plain(TESLA)) == plain(TESLA)


def test_a_date_is_read_as_far_as_it_is_given() -> None:
    found = dates(plain("In June 1884 and on July 4, then again on 10 July 1856 and in October."))
    assert found == (
        Date(None, "June", "1884"),
        Date("4", "July", None),
        Date("10", "July", "1856"),
        Date(None, "October", None),
    )
    assert dates("May they come.") == dates("March winds blow.") == ()


@pytest.mark.parametrize(
    "draft",
    [
        "Nikola Tesla was born on July 10, 1856 in Smiljan [1].",
        "Nikola Tesla was born on 1856-07-10 in Smiljan [1].",
        "Nikola Tesla was born in July 1856 in Smiljan [1].",
        "Tesla studied in Graz until December 1878 and left without a degree [1].",
        "Tesla crossed the Atlantic and met Thomas Edison, who hired him, in June 1884 [1].",
        "According to the page on Nikola Tesla, he studied in Graz until December 1878 and "
        "left without a degree [1].",
        "The passage states that Nikola Tesla was born on 10 July 1856 in Smiljan [1].",
        "The Wardenclyffe tower was begun in 1901; it cost $2.2 million and couldn't be finished "
        "[1].",
        "Edison paid him 18 dollars a week, about 1.2% of a profit of $1500 [1].",
    ],
)
def test_the_same_in_another_form_passes(draft: str) -> None:
    assert verify(draft, PASSAGES).failures == ()


@pytest.mark.parametrize(
    ("draft", "check"),
    [
        ("Nikola Tesla was born on 10 June 1856 in Smiljan [1].", Check.DATE),
        ("Nikola Tesla was born on 4 July 1856 in Smiljan [1].", Check.DATE),
        ("Nikola Tesla was born on 10 July 1884 in Smiljan [1].", Check.DATE),
        ("Nikola Tesla was born on 1856-10-07 in Smiljan [1].", Check.DATE),
        # All of these names and numbers are in the passage, and some in the sentence before.
        ("Nikola Tesla was born on 10 July 1856 in Graz [1].", Check.NAME),
        ("He studied in Smiljan until December 1878 and left without a degree [1].", Check.NAME),
        ("In June 1884, Edison crossed the Atlantic and met Thomas Westinghouse [1].", Check.NAME),
        ("The Wardenclyffe tower was begun in 1884 and could not be finished [1].", Check.NUMBER),
        ("The Edison tower was begun in 1901; it could not be finished [1].", Check.NAME),
        ("Graz called the motor the most valuable patent since the telephone [1].", Check.NAME),
    ],
)
def test_what_belongs_to_another_sentence_of_the_passage_fails(draft: str, check: Check) -> None:
    assert check in {failure.check for failure in verify(draft, PASSAGES).failures}


@pytest.mark.parametrize(
    ("source", "claim", "stands"),
    [
        ("After Louis, Charles ruled in Paris.", "Charles ruled in Paris after Louis.", True),
        ("Charles ruled in Paris after Louis.", "After Louis, Charles ruled in Paris.", True),
        ("After Louis, Charles ruled in Paris.", "After Charles, Louis ruled in Paris.", False),
        ("After Louis, Charles ruled in Paris.", "Louis ruled in Paris after Charles.", False),
        ("The king, Charles, paid 3 coins to Rollo.", "Charles, the king, paid Rollo.", True),
        ("The king, Charles, paid 3 coins to Rollo.", "Rollo paid 3 coins to Charles.", False),
    ],
)
def test_an_opening_may_move_and_who_did_it_may_not(source: str, claim: str, stands: bool) -> None:
    verdict = verify(f"{claim} [1]", [passage(1, "Kings", source)])
    assert verdict.passed is stands


def test_the_name_that_a_pronoun_stands_for_may_come_again() -> None:
    text = "Harvard University is old. It operates museums beside the Harvard Library in Boston."
    pages = [passage(1, "Harvard University", text)]
    claim = "Harvard University operates museums beside the Harvard Library in Boston [1]."
    assert verify(claim, pages).passed
    assert not verify(claim.replace("Harvard University", "Boston"), pages).passed


def test_a_word_of_another_sentence_does_not_take_the_place_of_one_of_this() -> None:
    text = (
        "embed listens on port 8001 and computes the vectors of passages and questions. rerank "
        "orders the passages that were found by how well they answer."
    )
    pages = [passage(1, "Services", text)]
    truth = "embed listens on port 8001 and computes the vectors of passages and questions [1]."
    assert verify(truth, pages).passed
    assert verify(truth.replace("computes", "calculates"), pages).passed
    assert not verify(truth.replace("embed", "rerank"), pages).passed


def test_a_clause_does_not_vouch_for_the_clause_beside_it() -> None:
    source = "The colonies mustered local companies for short periods, but did not pay for forces."
    pages = [passage(1, "Colonies", source)]
    assert verify("The colonies mustered local companies for short periods [1].", pages).passed
    assert not verify(f"{source.replace(' not', '')} [1]", pages).passed


_QUOTED = (
    'Westinghouse called the motor "the most valuable patent since the telephone, though nobody '
    'in New York had understood it before the autumn of 1888" [1].'
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("autumn", "Autumn"),
        ("telephone, though", "telephone though"),
        ("most valuable", "very valuable"),  # one ordinary word of nineteen
        ("the autumn of", "autumn of"),
        ("the telephone, though nobody in New York", "the telephone ..."),
    ],
)
def test_a_quote_stands_within_its_bounds(old: str, new: str) -> None:
    draft = _QUOTED.replace(old, new)
    if "..." in new:
        draft = draft.replace("... had understood it before", "[...] before")
    checks = {failure.check for failure in verify(draft, PASSAGES, profile=LIGHT).failures}
    assert Check.QUOTE not in checks


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1888", "1889"),
        ("New York", "New Jersey"),
        ("nobody", "somebody"),
        ("before", "after"),
        ("most valuable patent", "least worthy paper"),
        ("the most valuable patent since the telephone", "the autumn of 1888 ... the telephone"),
    ],
)
def test_a_quote_beyond_its_bounds_fails(old: str, new: str) -> None:
    checks = {
        failure.check
        for failure in verify(_QUOTED.replace(old, new), PASSAGES, profile=LIGHT).failures
    }
    assert Check.QUOTE in checks


@pytest.mark.parametrize(
    "draft",
    [
        "I'm sorry, but I can't tell.",
        "As an AI model I don't know that.",
        "The passages do not mention a ferry to Graz [1].",
        "Unfortunately, there is no information about it.",
        "Unfortunately the sources don't say.",
        "I cannot answer this from the sources [2].",
    ],
)
@pytest.mark.parametrize("profile", ["light", "strict"])
def test_a_refusal_is_no_answer(draft: str, profile: str) -> None:
    verdict = verify(draft, PASSAGES, profile=PROFILES[profile])
    assert Check.REFUSAL in {failure.check for failure in verdict.failures}


def test_a_source_may_speak_like_a_refusal() -> None:
    pages = [passage(1, "Letter", "I cannot come to Graz before the end of the summer.")]
    assert verify("I cannot come to Graz before the end of the summer [1].", pages).passed


def test_a_failure_shows_the_sentence_that_the_claim_was_held_against() -> None:
    failures = verify("Nikola Tesla was born on 10 June 1856 in Smiljan [1].", PASSAGES).failures
    assert {failure.evidence for failure in failures} == {
        "Nikola Tesla was born on 10 July 1856 in Smiljan."
    }


def test_a_draft_that_did_not_stop_is_not_read() -> None:
    draft = "Nikola Tesla was born on 10 July 1856 in Smiljan [1]. "
    endless = draft * (MOST_CHARACTERS // len(draft) + 1)
    verdict = verify(endless, PASSAGES)
    assert [failure.check for failure in verdict.failures] == [Check.LENGTH]


def test_light_lets_free_wording_pass_and_strict_does_not() -> None:
    free = (
        "Tesla, the son of Smiljan, was in Graz for his studies before the Atlantic crossing [1]."
    )
    assert verify(free, PASSAGES, profile=LIGHT).passed
    assert not verify(free, PASSAGES).passed


@pytest.mark.parametrize(
    ("draft", "check"),
    [
        ("Tesla, the son of Smiljan, was in Graz until December 1879 [1].", Check.DATE),
        ("Tesla was paid 19 dollars a week by Edison [1].", Check.NUMBER),
        ("Tesla was paid 18 dollars a week by Edison [3].", Check.CITATION),
        ("Tesla was paid 18 dollars a week by Edison [2].", Check.CITATION),
        ('Edison "hired him at once" [1].', Check.QUOTE),
        ("The bakery opens on Sundays.", Check.CITATION),
        ("", Check.EMPTY),
    ],
)
def test_light_still_holds_markers_quotes_numbers_and_dates(draft: str, check: Check) -> None:
    verdict = verify(draft, PASSAGES, profile=LIGHT)
    assert check in {failure.check for failure in verdict.failures}


def test_off_passes_everything_but_takes_out_what_is_no_citation() -> None:
    verdict = verify("The moon is made of cheese [1][7].", PASSAGES, profile=OFF)
    assert verdict.passed
    assert [claim.cited for claim in verdict.claims] == [(1,)]


@pytest.mark.parametrize("profile", ["off", "light", "strict"])
@pytest.mark.parametrize(
    "draft", ["", "[1]", "[999]", "\x00", "a" * 9000, "[" * 5000, '"' * 5000, "1" * 5000, "-" * 900]
)
def test_no_draft_is_too_odd_to_be_checked(draft: str, profile: str) -> None:
    verify(draft, PASSAGES, question=draft, profile=PROFILES[profile])


def test_a_long_draft_of_repeated_words_and_quotes_is_checked_in_no_time() -> None:
    page = passage(1, "Loops", "a b " * 4000 + "Zed")
    for draft in ("b a " * 3900 + "Loops Ann", ('"' + "a b " * 40 + 'c c" ') * 90):
        assert not verify(draft, [page]).passed


@pytest.mark.parametrize(
    "text", ["\u017fix men rowed.", "s\u0131x men rowed.", "3 thou\u017fand men."]
)
def test_letters_that_pass_for_others_where_case_is_ignored_break_nothing(text: str) -> None:
    passage = Passage(1, "a#0", "a", "c", None, None, text, 1.0)
    assert verify(f"{text} [1]", [passage]).passed


def test_a_draft_that_says_nothing_is_none_whatever_is_checked() -> None:
    assert [one.check for one in verify("", [], profile=OFF).failures] == [Check.EMPTY]
