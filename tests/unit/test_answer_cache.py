"""The memory of answers: what is kept, for how long, under which key, and what makes room."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.answer.outcome import Outcome
from services.generate.cache.cache import AnswerCache
from services.generate.cache.key import Key, key
from services.generate.cache.paraphrase import asks_the_same
from services.generate.pipeline import Query
from services.generate.prompting.chat import Chat, ToolCall
from services.generate.reading.citations import annotated
from services.generate.reading.passages import Passage
from services.generate.routing.decision import Against, Decision, Reason, RuledOut, Step
from services.generate.routing.history import Verified
from services.generate.verification.checks.failure import Check, Failure
from shared.auth import LOCAL, Principal

DECISION = Decision(
    tier="utility",
    model="m",
    version="1",
    chain=("m", "n"),
    escalation=(),
    declines=False,
    last_resort="extractive",
    refused=None,
    checks="strict",
    data_class="public",
    source="default",
    rule="scored",
    reasons=(Reason("rule", 1.0, "it fits"),),
    ruled_out=(),
    policy="p1",
)
OUTCOME = Outcome(
    answer=annotated("It is 8002. [1]", {1}),
    tier="utility",
    endpoint="e",
    model="m",
    answered=True,
    reasons=(Reason("rule", 1.0, "written before"),),
    passed=True,
    failures=(),
    escalated_from=None,
    verified=(Verified("utility", True),),
    hops=(),
    ruled_out=(),
    degraded=(),
    attempts=(),
    draft_ms=5.0,
    verify_ms=1.0,
)
PASSAGE = Passage(1, "ports#0", "ports", "handbook", "Ports", None, "It is 8002.", 0.9)
ASKED = Query("", (), 5, 1200, None, None, None)
SAID = {"role": "user", "content": "x"}
ANN = Principal("ann", "reader", groups=frozenset({"staff"}))


class Clock:
    """Seconds that go forward when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def cache(**more: Any) -> AnswerCache:
    return AnswerCache(**{"limit": 1_000_000, "seconds": 60.0} | more)


def keep(answers: AnswerCache, at: Key, outcome: Outcome = OUTCOME, vector: Any = None) -> None:
    answers.keep(at, vector, DECISION, outcome, "1:aa")


def found(answers: AnswerCache, at: Key, vector: Any = None) -> Outcome | None:
    return answers.find(at, vector, DECISION)


# --- what is kept ------------------------------------------------------------------------------


def test_a_hit_has_the_reasons_of_its_own_decision_and_asked_nobody() -> None:
    answers = cache()
    keep(answers, Key("q", "r"))
    given_again = found(answers, Key("q", "r"))
    assert given_again is not None
    assert given_again.answer == OUTCOME.answer
    assert given_again.reasons == (Reason("rule", 1.0, "it fits"),)
    assert (given_again.draft_ms, given_again.attempts) == (0.0, ())
    assert given_again.cached is not None
    assert given_again.cached.record == "1:aa"
    keep(answers, Key("other", "r"), given_again)  # is none that was written
    assert found(answers, Key("other", "r")) is None


FAILED = {
    "passed": False,
    "failures": (Failure(Check.NUMBER, "1999"),),
    "escalated_from": "utility:e",
    "verified": (Verified("utility", False),),
}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"answered": False}, False),
        ({"degraded": ("llm",)}, False),
        ({"ruled_out": (RuledOut("m", Against.COMPLIANCE, "no"),)}, False),
        ({"tool_calls": (ToolCall("1", "f", "{}"),)}, False),
        (FAILED | {"escalated_from": None, "shown": True}, False),
        ({"shown": True}, True),
        # The next tier's answer was verified in its turn; the last resort is no tier's.
        (FAILED | {"verified": (Verified("utility", False), Verified("reasoning", True))}, True),
        (FAILED, False),
        ({"verified": ()}, True),  # the last resort alone might write
    ],
)
def test_only_an_answer_that_passed_and_missed_nothing_is_kept(
    change: dict[str, Any], kept: bool
) -> None:
    answers = cache()
    keep(answers, Key("q", "r"), replace(OUTCOME, **change))
    again = found(answers, Key("q", "r"))
    assert (again is not None) is kept
    if again is not None:
        assert (again.passed, again.failures, again.hops, again.shown) == (True, (), (), False)


@pytest.mark.parametrize("place", ["first", "escalation"])
def test_where_nothing_is_checked_nothing_is_kept(place: str) -> None:
    decision = (
        replace(DECISION, checks="off")
        if place == "first"
        else replace(DECISION, escalation=(Step("reasoning", ("n",), "off"),))
    )
    answers = cache()
    answers.keep(Key("q", "r"), None, decision, OUTCOME, None)
    assert answers.find(Key("q", "r"), None, decision) is None


# --- for how long ------------------------------------------------------------------------------


def test_an_answer_is_forgotten_when_its_time_is_up() -> None:
    clock = Clock()
    answers = cache(clock=clock, similarity=0.9)
    vector = np.array([1, 0], np.float32)
    keep(answers, Key("q", "r"), vector=vector)
    clock.now = 59.9
    assert found(answers, Key("q", "r")) is not None
    clock.now = 60.0  # a hit does not make it last longer
    assert found(answers, Key("Q?", "r"), vector) is None
    assert found(answers, Key("q", "r")) is None


def test_the_answer_that_is_unused_the_longest_makes_room() -> None:
    answers = cache(limit=20_000)
    for name in ("old", "used", *map(str, range(20))):
        keep(answers, Key(name, "r"))
        if name != "old":
            assert found(answers, Key("used", "r")) is not None
    assert found(answers, Key("old", "r")) is None
    assert found(answers, Key("19", "r")) is not None


def test_an_answer_larger_than_the_memory_is_not_kept() -> None:
    answers = cache(limit=5_000)
    keep(answers, Key("small", "r"))
    keep(answers, Key("large", "r"), replace(OUTCOME, reasons=(Reason("rule", 1.0, "x" * 5_000),)))
    assert found(answers, Key("large", "r")) is None
    assert found(answers, Key("small", "r")) is not None


# --- under which key -----------------------------------------------------------------------------


def key_of(**more: Any) -> Key:
    parts: dict[str, Any] = {
        "question": "Which port?",
        "asked": ASKED,
        "passages": [PASSAGE],
        "decision": DECISION,
        "principal": ANN,
    } | more
    return key(**parts)


OTHERS: list[dict[str, Any]] = [
    {"question": "Which ports?"},
    *(
        {"asked": replace(ASKED, **{name: value})}
        for name, value in {
            "corpora": ("handbook",),
            "top_k": 6,
            "requested": "reasoning",
            "draft_tokens": 50,
            "mark": "internal",
            "tiers": frozenset({"utility"}),
            "budget": 7,
        }.items()
    ),
    *(
        {"asked": replace(ASKED, chat=chat)}
        for chat in (
            Chat(before=(SAID,)),
            Chat(after=(SAID,)),
            Chat(tools=(SAID,)),
            Chat(tools=(SAID,), tool_choice="auto"),
            Chat(response_format={"type": "json_object"}),
        )
    ),
    {"passages": []},
    {"passages": [PASSAGE, replace(PASSAGE, n=2)]},
    {"principal": replace(ANN, name="bob")},
    {"principal": replace(ANN, groups=frozenset({"staff", "board"}))},
    {"principal": replace(ANN, corpora=frozenset({"handbook"}))},
    {"principal": replace(ANN, services=frozenset({"generate"}))},
    {"principal": replace(ANN, role="admin")},
    *({"passages": [replace(PASSAGE, **{name: "x"})]} for name in ("id", "title", "url", "text")),
    *(
        {"decision": replace(DECISION, **{name: value})}
        for name, value in {
            "policy": "p2",
            "data_class": "internal",
            "chain": ("m",),
            "checks": "light",
            "version": "2",
            "last_resort": None,
            "escalation": (Step("reasoning", ("n",), "strict"),),
        }.items()
    ),
]


def test_whatever_an_answer_depends_on_makes_another_key() -> None:
    keys = [key_of(), *(key_of(**one) for one in OTHERS)]
    assert len(set(keys)) == len(keys)


def test_white_space_scores_and_the_names_of_admins_make_no_other_key() -> None:
    assert key_of() == key_of(
        question="  Which\n port?", passages=[replace(PASSAGE, score=0.1)], decision=DECISION
    )
    assert key_of(principal=LOCAL) == key_of(principal=replace(LOCAL, name="root"))


@given(st.text(), st.text(), st.text())
def test_no_text_can_pass_for_two(one: str, other: str, third: str) -> None:
    def titled(title: str, text: str) -> Key:
        return key_of(passages=[replace(PASSAGE, title=title, text=text)])

    assert (titled(one, other) == titled(one + third, other)) is (not third)
    assert (titled(one + third, other) == titled(one, third + other)) is (
        not third or (one + third, other) == (one, third + other)
    )


# --- another wording -----------------------------------------------------------------------------


def test_another_wording_has_to_be_close_and_of_the_same_key() -> None:
    answers = cache(similarity=0.9)
    near, far = np.array([1, 0], np.float32), np.array([0.8, 0.6], np.float32)
    keep(answers, Key("Which port?", "r"), vector=near)
    asked = Key("which port", "r")
    assert found(answers, asked, near) is not None
    assert found(answers, asked, far) is None
    assert found(answers, asked, None) is None
    assert found(answers, Key("which port", "other"), near) is None
    assert found(answers, Key("which gate", "r"), near) is None
    assert found(answers, asked, np.array([1, 0, 0], np.float32)) is None  # of another model
    assert found(cache(), asked, near) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Which port does rerank use?", "what port does the rerank use", True),
        ("Hello! Which port?\nThank you very much in advance.", "Which port?", True),
        ("Who was defeated by Montcalm?", "Who defeated Montcalm?", False),
        ("What moves from a box to a bin?", "What moves from a bin to a box?", False),
        ("What was asked from them?", "What was asked to them?", False),
        ("What fell by 5 degrees?", "What fell by -5 degrees?", False),
        ("What fell in 1979?", "What fell in 1973?", False),
        ("Is it safe?", "Isn't it safe?", False),
        ("Is it safe?", "Was it safe?", False),
        ("Is C++ safe?", "Is C safe?", False),
        ("Is C# safe?", "Is C++ safe?", False),
        ("Is $100 enough?", "Is €100 enough?", False),
        ("What costs 5%?", "What costs 5?", False),
        ("Where is x > 5?", "Where is x < 5?", False),
        ("Where is x != 5?", "Where is x = 5?", False),
        ("What does -v do?", "What does v do?", False),
        ("What is .NET?", "What is net?", False),
        ("Is the C++ safe, then?", "Is C++ safe then", True),
        ("It rains. Is it safe?", "It rains, is it safe?", True),
    ],
)
def test_a_wording_asks_the_same_only_by_the_same_words(one: str, other: str, same: bool) -> None:
    assert asks_the_same(one, other) is same
    assert asks_the_same(other, one) is same
