"""A model that may not see the data is never asked, whatever path the answer takes."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from services.generate.policy.schema import Policy
from services.generate.routing.decision import Decision, Step
from services.generate.routing.router import route
from shared.context import Deadline, current, enter
from tests.escalating import (
    BEHAVIOURS,
    CLASSES,
    MODELS,
    PLAIN,
    TIERS,
    outcome_of,
    policy_of,
)


def subsets() -> Iterator[tuple[str, ...]]:
    for size in range(len(MODELS) + 1):
        yield from itertools.combinations(MODELS, size)


def decisions(policy: Policy, data_class: str) -> Iterator[Decision]:
    """Each way of asking; and decisions that no router may make: with every model in them."""
    plain = replace(PLAIN, mark=data_class)
    for requested in (None, *TIERS, *MODELS):
        yield route(replace(plain, requested=requested), policy)
    yield route(replace(plain, flagged=True), policy)
    first = route(plain, policy)
    steps = (Step("dearer", ("dear", "quote"), "strict"),)
    yield replace(first, tier="cheap", chain=MODELS, escalation=steps, last_resort="quote")


def ways(decision: Decision) -> Iterator[tuple[str, ...]]:
    """What the writers may do, those aside that this decision can't lead to."""
    reached = {*decision.chain, *(name for step in decision.escalation for name in step.chain)}
    choices = [BEHAVIOURS if name in reached else BEHAVIOURS[:1] for name in MODELS[:3]]
    return itertools.product(*choices)


async def answer(decision: Decision, policy: Policy, behaviours: tuple[str, ...]) -> list[str]:
    return (await outcome_of(decision, policy, behaviours))[1]


@pytest.mark.parametrize("data_class", CLASSES)
async def test_a_forbidden_model_is_never_asked(data_class: str) -> None:
    seen: set[str] = set()
    for allowed in subsets():
        policy = policy_of({"public": MODELS, data_class: allowed})
        for decision in decisions(policy, data_class):
            for behaviours in ways(decision):
                asked = await answer(decision, policy, behaviours)
                assert {*asked} <= {*allowed}, (allowed, decision, behaviours)
                assert len(asked) == len({*asked}), "a writer was asked twice"
                seen |= {*asked}
    assert seen == {*MODELS}


@pytest.mark.parametrize("data_class", CLASSES)
def test_a_decision_names_no_forbidden_model_either(data_class: str) -> None:
    for allowed in subsets():
        policy = policy_of({"public": MODELS, data_class: allowed})
        *routed, _ = decisions(policy, data_class)
        for decision in routed:
            later = [name for step in decision.escalation for name in step.chain]
            named = {*decision.chain, *later, decision.last_resort} - {None}
            assert named <= {*allowed}, decision
            out = {one.model for one in decision.ruled_out if one.rule == "compliance"}
            assert out == {*MODELS} - {*allowed}


async def test_a_class_without_an_entry_has_no_model_at_all() -> None:
    policy = policy_of({"public": ("*",)})
    for decision in decisions(policy, "restricted"):
        assert await answer(decision, policy, ("answers",) * 3) == []


async def test_the_corpus_of_a_passage_counts_like_a_mark() -> None:
    policy = policy_of({"public": ("*",), "internal": ("quote",)})
    assert route(PLAIN, policy).chain == ("cheap-a", "cheap-b")
    found = route(replace(PLAIN, corpora=frozenset({"hr"})), policy)
    assert (found.tier, found.last_resort, found.source) == (None, "quote", "corpus hr")
    assert await answer(found, policy, ("answers",) * 3) == ["quote"]


# --- the way of an answer ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviours", "low_confidence", "asked", "hops"),
    [
        (("answers", "answers", "answers"), False, ["cheap-a"], []),
        (("fails", "answers", "answers"), False, ["cheap-a", "cheap-b"], []),
        (("lies", "answers", "answers"), False, ["cheap-a", "dear"],
         [("validator_failed", "cheap", "dearer")]),
        (("fails", "fails", "answers"), False, ["cheap-a", "cheap-b", "dear"],
         [("tier_unavailable", "cheap", "dearer")]),
        (("fails", "lies", "fails"), False, ["cheap-a", "cheap-b", "dear", "quote"],
         [("validator_failed", "cheap", "dearer"), ("tier_unavailable", "dearer", None)]),
        (("declines", "answers", "answers"), False, ["cheap-a"], []),
        (("declines", "answers", "answers"), True, ["cheap-a", "dear"],
         [("low_confidence", "cheap", "dearer")]),
    ],
)  # fmt: skip
async def test_fallbacks_come_before_hops_and_the_last_resort_after_them(
    behaviours: tuple[str, ...],
    low_confidence: bool,
    asked: list[str],
    hops: list[tuple[str, str, str | None]],
) -> None:
    policy = policy_of({"internal": ("*",), "public": ("*",)}, low_confidence=low_confidence)
    outcome, seen = await outcome_of(route(PLAIN, policy), policy, behaviours)
    assert seen == asked
    assert [(hop.reason.value, hop.source, hop.target) for hop in outcome.hops] == hops
    assert outcome.answered == (behaviours[0] != "declines" or low_confidence)
    first_shown = asked[0] == outcome.endpoint or not outcome.answered
    assert (outcome.escalated_from is None) == first_shown


@pytest.mark.parametrize(("profile", "shown"), [("off", True), ("strict", False)])
async def test_a_draft_is_checked_by_the_profile_of_the_decision(profile: str, shown: bool) -> None:
    policy = policy_of({"public": ("*",)}).model_copy(update={"checks": profile})
    decision = route(PLAIN, policy)
    assert decision.checks == profile
    outcome, _ = await outcome_of(decision, policy, ("lies", "answers", "answers"))
    assert ("9999" in outcome.answer.content) == shown


async def test_without_any_hop_a_failed_draft_goes_to_the_last_resort() -> None:
    policy = policy_of({"public": ("*",)})
    still = policy.model_copy(
        update={"escalation": policy.escalation.model_copy(update={"max_hops": 0})}
    )
    outcome, asked = await outcome_of(route(PLAIN, still), still, ("lies", "answers", "answers"))
    assert asked == ["cheap-a", "quote"]
    assert outcome.escalated_from == "cheap:cheap-a"
    assert not outcome.passed


async def test_a_fallback_that_takes_longer_than_is_left_is_passed_over_and_told() -> None:
    policy = policy_of({"public": ("*",)})
    slow = policy.models["cheap-b"].model_copy(update={"latency_ms": 10**9})
    late = policy.model_copy(update={"models": {**policy.models, "cheap-b": slow}})
    decision = route(PLAIN, late)  # made when there was time enough
    assert decision.chain == ("cheap-a", "cheap-b")
    enter(replace(current(), deadline=Deadline.after_ms(60_000)))
    outcome, asked = await outcome_of(decision, late, ("fails", "answers", "answers"))
    assert asked == ["cheap-a", "dear"]
    assert [(one.model, one.rule) for one in outcome.ruled_out] == [("cheap-b", "deadline")]
