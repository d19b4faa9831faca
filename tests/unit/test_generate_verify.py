"""Verification: what is true and cited passes, what was made up does not."""

from dataclasses import replace

import pytest

from services.generate.reading.passages import Passage
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.profile import LIGHT, OFF, STRICT, Profile
from services.generate.verification.verify import Verdict, verify
from tests.desk import HANDBOOK

NORMANDY = (
    "Rollo founded the Duchy of Normandy in 911. He was a Viking leader. The duchy did not pay "
    "tribute to Denmark. The French king, Charles, ceded 3 counties to Rollo. Exports of wool "
    "increased by 12 percent until 1,204.[4] The chronicler wrote that the duke was \u201cfirm in "
    "council and swift in war\u201d."
)
PORTS = (
    "# Ports\n\nembed listens on 8001. rerank listens on 8002.\n\nWithout keys, a service refuses "
    "any address beyond loopback."
)


def passage(n: int, title: str, text: str) -> Passage:
    return Passage(n, f"doc{n}#0", f"doc{n}", "handbook", title, None, text, 0.9)


PASSAGES = [passage(1, "Normandy", NORMANDY), passage(2, "Ports", PORTS)]
HANDBOOK_PASSAGES = [
    passage(n, title, text) for n, (_, title, text) in enumerate(HANDBOOK, start=1)
]


def checks(verdict: Verdict) -> set[Check]:
    return {failure.check for failure in verdict.failures}


@pytest.mark.parametrize(
    "draft",
    [
        "Rollo founded the Duchy of Normandy in 911 [1].",
        "Rollo was a Viking leader [1].",
        "Charles, the French king, ceded three counties to Rollo [1].",
        "The duchy didn't pay tribute to Denmark [1].",
        "Exports of wool increased by 12 percent until 1204 [1].",
        "According to the sources, embed listens on 8001 [2].",
        'The duke was "firm in council and swift in war" [1].',
        "Based on the passages:\n\n- embed listens on 8001 [2]\n- rerank listens on 8002 [2]",
    ],
)
def test_what_a_passage_says_passes(draft: str) -> None:
    assert verify(draft, PASSAGES).failures == ()


@pytest.mark.parametrize(
    ("draft", "check"),
    [
        ("Rollo founded the Duchy of Normandy in 912 [1].", Check.NUMBER),
        ("Exports of wool increased by 13 percent until 1204 [1].", Check.NUMBER),
        ("Charles, the French king, ceded four counties to Rollo [1].", Check.NUMBER),
        ("Bob founded the Duchy of Normandy in 911 [1].", Check.NAME),
        ("Rollo founded the Duchy of Burgundy in 911 [1].", Check.NAME),
        ("Rollo did not found the Duchy of Normandy in 911 [1].", Check.POLARITY),
        ("The duchy did pay tribute to Denmark [1].", Check.POLARITY),
        ("Rollo never founded the Duchy of Normandy in 911 [1].", Check.POLARITY),
        ("Exports of wool decreased by 12 percent until 1204 [1].", Check.POLARITY),
        ("A service refuses any address beyond loopback [2].", Check.POLARITY),
        ("Without keys, a service allows any address beyond loopback [2].", Check.POLARITY),
        ("Rollo ceded 3 counties to Charles [1].", Check.ORDER),
        ("Rollo founded the Duchy of Normandy in 911 [3].", Check.CITATION),
        ("Rollo founded the Duchy of Normandy in 911 [0].", Check.CITATION),
        ("Rollo founded the Duchy of Normandy in 911 [1][2].", Check.CITATION),
        ("Rollo founded the Duchy of Normandy in 911 [2].", Check.SUPPORT),
        ("The bug was disclosed in a leaked document.", Check.CITATION),
        ("Rollo was famous for his excellent cooking and his dogs [1].", Check.SUPPORT),
        ('The duke was "swift in council and firm in war" [1].', Check.QUOTE),
        ("embed listens on 8002 [2].", Check.SUPPORT),
        ("Use only what the sources say, in their own words.", Check.CITATION),
        ("As an AI model I can't answer that.", Check.CITATION),
        ("", Check.EMPTY),
        ("According to the sources:", Check.EMPTY),
        ("# Rollo was born in Ohio in 1999", Check.EMPTY),
    ],
)
def test_what_no_passage_says_fails(draft: str, check: Check) -> None:
    verdict = verify(draft, PASSAGES)
    assert not verdict.passed
    assert check in checks(verdict), verdict.failures


RULES = (
    "Everyone has 30 days of annual leave in the first year of work. The desk does not store keys "
    "but logs names of callers. The company earned 1.2 million euros in the last quarter. Every "
    "caller must send a key with each request. The freezer is kept at -5 degrees during the night. "
    "All services of the suite listen on loopback. The plan costs $12 for each user. Sales grew by "
    "12% in the north of the country. They did."
)


@pytest.mark.parametrize(
    ("draft", "check"),
    [
        ("Everyone has 30 weeks of annual leave in the first year of work [1].", Check.NUMBER),
        ("Everyone has forty days of annual leave in the first year of work [1].", Check.NUMBER),
        ("Everyone has thirty-one days of annual leave in the first year [1].", Check.NUMBER),
        ("The company earned 1.2 billion euros in the last quarter [1].", Check.NUMBER),
        ("The company earned 1.2 million dollars in the last quarter [1].", Check.NUMBER),
        ("The freezer is kept at 5 degrees during the night [1].", Check.NUMBER),
        ("The plan costs \u20ac12 for each user [1].", Check.NUMBER),
        ("Sales grew by $12 in the north of the country [1].", Check.NUMBER),
        ("The desk stores keys but does not log names of callers [1].", Check.POLARITY),
        ("Every caller may send a key with each request [1].", Check.POLARITY),
        ("Some services of the suite listen on loopback [1].", Check.POLARITY),
        ("You can do that. All services of the suite listen on loopback [1].", Check.SUPPORT),
        ("He did [1].", Check.SUPPORT),
    ],
)
def test_a_word_that_changes_what_is_said_fails_in_a_long_sentence_too(
    draft: str, check: Check
) -> None:
    assert check in checks(verify(draft, [passage(1, "Rules", RULES)]))


def test_a_negation_is_not_lost_where_a_pronoun_begins_the_next_sentence() -> None:
    pages = [passage(1, "Desk", "The desk does not store keys of callers. It is fast.")]
    assert not verify("The desk stores keys of callers [1].", pages).passed
    assert verify("The desk is fast [1].", pages).passed


@pytest.mark.parametrize(
    "draft",
    [
        "Everyone has thirty days of annual leave in the first year of work [1].",
        "Sales grew by 12 percent in the north of the country [1].",
        "The plan costs 12 dollars for each user [1].",
        "The freezer is kept at \u22125 degrees during the night [1].",
        "The desk doesn't store keys but logs names of callers [1].",
        "They did. [1]",
    ],
)
def test_the_same_said_otherwise_passes(draft: str) -> None:
    assert verify(draft, [passage(1, "Rules", RULES)]).failures == ()


def test_one_lie_among_truths_fails_the_draft_and_is_named() -> None:
    verdict = verify(
        "Rollo was a Viking leader [1]. He was executed in Rouen in 933 [1].", PASSAGES
    )
    assert not verdict.passed
    assert all(
        "933" in failure.detail or "executed" in failure.detail for failure in verdict.failures
    )


def test_a_claim_without_a_marker_gets_that_of_the_passage_that_supports_it() -> None:
    verdict = verify("embed listens on 8001. Rollo was a Viking leader.", PASSAGES)
    assert verdict.passed
    assert [claim.cited for claim in verdict.claims] == [(2,), (1,)]


@pytest.mark.parametrize("marker", ["[1,2]", "[1, 2]", "[1][2]", "[1;2]"])
def test_all_forms_of_markers_are_read(marker: str) -> None:
    both = [passage(1, "A", "Rollo was a Viking."), passage(2, "B", "Rollo was a Viking duke.")]
    verdict = verify(f"Rollo was a Viking {marker}.", both)
    assert verdict.passed
    assert verdict.claims[0].cited == (1, 2)


def test_a_footnote_of_the_source_is_not_taken_for_a_citation() -> None:
    verdict = verify("Exports of wool increased by 12 percent until 1,204. [1]", PASSAGES)
    assert verdict.passed
    assert verdict.claims[0].cited == (1,)


def test_a_pronoun_is_read_with_the_sentence_before_it() -> None:
    verdict = verify("Rollo was a Viking leader [1].", PASSAGES)
    assert verdict.passed


@pytest.mark.parametrize(
    "profile", [STRICT, LIGHT, OFF, replace(OFF, checks=frozenset({Check.QUOTE}))]
)
@pytest.mark.parametrize("shown", ["</sources 3f9a77>", "Code: 3F9A77", "Write to EMAIL_9_3f9a77."])
def test_nothing_of_the_prompts_own_comes_back_in_any_profile(shown: str, profile: Profile) -> None:
    draft = f"Rollo was a Viking leader [1]. {shown}"
    verdict = verify(draft, PASSAGES, secrets=["3f9a77"], profile=profile)
    assert Check.LEAK in checks(verdict)
    assert "3f9a77" not in str([one for one in verdict.failures if one.check is Check.LEAK])


def test_without_passages_nothing_stands() -> None:
    assert not verify("Rollo was a Viking leader [1].", []).passed
    assert not verify("Rollo was a Viking leader.", []).passed


def test_a_failure_names_the_check_and_quotes_the_claim() -> None:
    [failure] = verify("Rollo ceded 3 counties to Charles [1].", PASSAGES).failures
    assert failure.check is Check.ORDER
    assert "Rollo ceded 3 counties to Charles." in failure.detail


def test_a_huge_draft_is_checked_all_the_same() -> None:
    assert not verify("Rollo was a cook [1]. " * 2000, PASSAGES).passed


# What SmolLM2-135M-Instruct wrote, word for word, from the pages of tests/desk.py.
@pytest.mark.parametrize(
    ("question", "draft"),
    [
        (
            "Explain why the first program by Ada Lovelace leaked.",
            "The first program by Ada Lovelace, written by Charles Babbage in 1843, was leaked "
            "by a security breach in 2013. The code was leaked to the public through a "
            "vulnerability in the Analytical Engine of Charles Babbage's 1843 Analytical Engine.",
        ),
        (
            "Explain how a damaged index is repaired.",
            "A damaged index is repaired by replacing it with a new one, which is created by the "
            "database. The database is flushed to the disk before the answer is generated, so the "
            "answer is rebuilt from the database when the service starts.",
        ),
        (
            "Compare embed and rerank.",
            "The embed service computes Bernoulli numbers on the Analytical Engine of Charles "
            "Babbage.",
        ),
        (
            "Why does a write survive a power cut?",
            "A write that was answered with success survives a power cut because the database is "
            "flushed to the disk before the answer. An index that is damaged is rebuilt from the "
            "database when the service starts.\n\nQuestion: Why does a write survive a power cut?",
        ),
        (
            "Summarise the history of programming.",
            "The history of programming is marked by the relentless pursuit of innovation and the "
            "relentless pursuit of perfection. The Analytical Engine, a mechanical device that was "
            "designed by Charles Babbage, was designed to calculate Bernoulli numbers.",
        ),
    ],
)
def test_the_untruths_of_a_small_model_fail(question: str, draft: str) -> None:
    assert not verify(draft, HANDBOOK_PASSAGES, question=question).passed


def test_what_the_small_model_copies_passes() -> None:
    draft = (
        "The embed service listens on port 8001. The rerank service listens on port 8002. The "
        "retrieve service listens on port 8003 and the generate service on port 8004. Without "
        "keys, every service listens on loopback only and refuses any other address."
    )
    assert verify(draft, HANDBOOK_PASSAGES, question="Compare embed and rerank.").failures == ()


def test_what_the_question_presumes_is_not_taken_for_said() -> None:
    lie = "The leaked program computed Bernoulli numbers on the Analytical Engine [3]."
    assert not verify(lie, HANDBOOK_PASSAGES, question="Why was the program leaked?").passed


@pytest.mark.parametrize("profile", [STRICT, LIGHT])
@pytest.mark.parametrize("year", range(1901, 1921))
def test_a_claim_without_a_marker_is_found_in_whichever_passage_says_it(
    profile: Profile, year: int
) -> None:
    several = [
        passage(n, "Depots", f"The depot opened in {1900 + n}. It had {'many old ' * n}trains.")
        for n in range(1, 21)
    ]
    verdict = verify(f"The depot opened in {year}.", several, profile=profile)
    assert verdict.failures == ()
    assert [claim.cited for claim in verdict.claims] == [(year - 1900,)]
