"""Escalation before anybody writes, what may follow a draft, and how a writer's time is shared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.generate.answer import drafting, escalate
from services.generate.answer.outcome import Ended, Hop, Spending
from services.generate.policy.file import PolicyError, default_policy, parse
from services.generate.policy.schema import EscalationReason
from services.generate.routing.decision import Escalated
from services.generate.routing.router import route
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.verification.checks.failure import Check
from shared.context import Deadline, current, enter
from tests import escalating as way
from tests.policies import POLICY_TEXT, bent, seen

EASY = "When was it signed?"
HR = """\
  - name: hr
    when: {keywords: [salary]}
    then: {escalate: sensitive_domain}
"""


def with_rule(rule: str) -> str:
    return bent("rules:\n", f"rules:\n{rule}")


# --- before anybody writes ---------------------------------------------------------------------


def test_a_rule_that_escalates_lifts_what_the_others_choose_by_one_tier() -> None:
    policy = parse(with_rule(HR), "p")
    chosen = route(seen("When was the salary paid?", 0.9), policy)
    assert (chosen.tier, chosen.rule) == ("large", "hr")
    assert chosen.escalated == Escalated(EscalationReason.SENSITIVE_DOMAIN, "small")
    assert "sensitive_domain: from small to large; keyword salary" in str(chosen.reasons[-1])
    assert route(seen(EASY, 0.9), policy).escalated is None


def test_what_goes_to_the_dearest_tier_anyway_is_not_escalated() -> None:
    policy = parse(with_rule(HR), "p")
    chosen = route(seen("Which contract has the salary?", 0.9), policy)
    assert (chosen.tier, chosen.rule, chosen.checks) == ("large", "contracts", "strict")
    assert chosen.escalated is None
    assert any("it is large without that" in reason.seen for reason in chosen.reasons)


def test_a_question_for_nobody_is_not_escalated() -> None:
    policy = default_policy()
    weak = replace(seen(EASY, 0.0), flagged=True)
    chosen = route(weak, policy)
    assert (chosen.tier, chosen.rule, chosen.escalated) == (None, "weak_evidence", None)


def test_with_the_packaged_policy_the_callers_flag_leads_to_reasoning() -> None:
    plain = seen(EASY, 0.9)
    assert route(plain, default_policy()).tier == "utility"
    flagged = route(replace(plain, flagged=True), default_policy())
    assert flagged.tier == "reasoning"
    assert flagged.escalated == Escalated(EscalationReason.FLAGGED_COMPLEX, "utility")


def test_a_score_near_below_a_bar_goes_to_the_dearer_tier() -> None:
    text = bent("  start: small", "  margin: 0.2\n  start: small")
    policy = parse(text, "p")
    hard = seen("Prove it.", 0.9)  # 0.2 + 0.02 - 0.9 + 1.5 = 0.82
    chosen = route(hard, policy)
    assert (chosen.tier, chosen.rule) == ("large", "scored")
    assert chosen.escalated == Escalated(EscalationReason.POLICY_UNCERTAIN, "small")
    assert route(hard, parse(POLICY_TEXT, "p")).tier == "small"
    sure = route(seen("Prove it.", 0.1), policy)  # over the bar without the margin
    assert (sure.tier, sure.escalated) == ("large", None)


def test_where_the_cheaper_tier_might_not_write_anyway_nothing_is_escalated() -> None:
    policy = parse(with_rule(HR), "p")
    marked = replace(seen("When was the salary paid?", 0.9), mark="secret")
    chosen = route(marked, policy)
    assert (chosen.tier, chosen.model, chosen.escalated) == ("large", "large-b", None)


def test_a_rule_that_escalates_hides_none_of_those_behind_it() -> None:
    always = "  - {name: all, then: {escalate: flagged_complex}}\n"
    policy = parse(with_rule(always), "p")
    assert route(seen("Is the contract signed?", 0.9), policy).rule == "contracts"
    assert route(seen(EASY, 0.9), policy).rule == "all"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{name: a, then: {checks: light}}", "it needs a tier, or a reason to escalate"),
        ("{name: a, then: {escalate: boredom}}", "Input should be 'flagged_complex' or"),
        ("{name: a, then: {escalate: flagged_complex, tier: none}}", "can't lead to none"),
        ("{name: a, then: {escalate: flagged_complex, tier: tiny}}", "no tier named tiny"),
        ("{name: a, then: {escalate: flagged_complex, tier: large, critical: true}}", "critical"),
        ("{name: a, when: {success: {tier: tiny, below: 0.5}}, then: {tier: large}}", "named tiny"),
        ("{name: a, when: {success: {tier: small}}, then: {tier: large}}", "min, below or both"),
    ],
)
def test_a_rule_that_leads_nowhere_is_refused(rule: str, told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        parse(with_rule(f"  - {rule}\n"), "p")


def test_of_two_rules_that_escalate_the_same_questions_the_second_is_unreachable() -> None:
    with pytest.raises(PolicyError, match="rule again is unreachable"):
        parse(with_rule(HR + HR.replace("hr", "again")), "p")


def test_reasons_that_come_before_a_draft_are_none_to_go_on_for_after_one() -> None:
    text = bent("{max_hops: 1}", "{max_hops: 1, reasons: [policy_uncertain]}")
    with pytest.raises(PolicyError, match=r"escalation\.reasons\.0"):
        parse(text, "p")


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("{model: r, cheap: tiny, strong: large}", "learned.cheap: there is no tier named tiny"),
        ("{model: r, cheap: large, strong: small}", "tier large is not cheaper than small"),
        ("{model: r, cheap: small}", "learned.strong: Field required"),
        ("{model: '', cheap: small, strong: large}", "learned.model"),
    ],
)
def test_a_learned_router_without_its_tiers_is_refused(part: str, told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        parse(bent("scored:\n", f"learned: {part}\nscored:\n"), "p")


def test_a_learned_router_that_never_decides_is_refused() -> None:
    part = "learned: {model: r, mode: decide, cheap: small, strong: large}\n"
    text = bent("  - name: contracts", f"  - {{name: all, then: {{tier: small}}}}\n{part}")
    text = text[: text.index(part)] + part + text[text.index("escalation:") :]
    with pytest.raises(PolicyError, match=r"learned\.mode: it never decides"):
        parse(text, "p")


# --- on the way of an answer -------------------------------------------------------------------


async def test_an_escalation_before_the_draft_is_a_step_like_the_others() -> None:
    policy = way.policy_of({"public": ("*",)})
    plain = route(way.PLAIN, policy)
    lifted = replace(
        plain,
        tier="dearer",
        chain=("dear",),
        escalation=(),
        escalated=Escalated(EscalationReason.FLAGGED_COMPLEX, "cheap"),
    )
    outcome, asked = await way.outcome_of(lifted, policy, ("answers",) * 3)
    assert asked == ["dear"]
    assert outcome.hops == (Hop(EscalationReason.FLAGGED_COMPLEX, "cheap", "dearer"),)
    assert (outcome.escalated_from, outcome.answered) == (None, True)


async def test_a_writer_that_finds_no_answer_is_believed_where_nobody_is_behind_it() -> None:
    policy = way.policy_of({"public": ("*",)})
    decision = route(way.PLAIN, policy)
    outcome, asked = await way.outcome_of(decision, policy, ("declines",) * 3)
    assert asked == ["cheap-a", "dear"]  # and not the last resort
    assert not outcome.answered
    assert [(hop.reason, hop.target) for hop in outcome.hops] == [
        (EscalationReason.LOW_CONFIDENCE, "dearer")
    ]
    assert outcome.endpoint == "dear"


@pytest.mark.parametrize("requested", ["cheap", "cheap-a"])
async def test_who_is_asked_for_by_name_goes_on_to_no_other_tier_unless_the_policy_says_so(
    requested: str,
) -> None:
    policy = way.policy_of({"public": ("*",)})
    named = replace(way.PLAIN, requested=requested)
    assert route(named, policy).escalation == ()
    _, asked = await way.outcome_of(route(named, policy), policy, ("lies",) * 3)
    assert asked == ["cheap-a", "quote"]
    on = policy.escalation.model_copy(update={"requested": True})
    willing = policy.model_copy(update={"escalation": on})
    assert [step.tier for step in route(named, willing).escalation] == ["dearer"]


@asynccontextmanager
async def time_left(milliseconds: float) -> AsyncIterator[None]:
    before = current()
    enter(replace(before, deadline=Deadline.after_ms(milliseconds)))
    try:
        yield
    finally:
        enter(before)


class Hanging(way.Writer):
    """Writes nothing for as long as it may."""

    async def draft(self, request: DraftRequest) -> Draft:
        self._asked.append(self.name)
        await asyncio.Event().wait()
        raise AssertionError


class Slow(way.Writer):
    """Shows the beginning of its answer at once, and takes longer for the rest than its share."""

    async def draft(self, request: DraftRequest) -> Draft:
        draft = await super().draft(request)
        assert request.show is not None
        request.show(draft.text)
        await asyncio.sleep(0.15)
        return draft


@pytest.mark.parametrize("behaviour", ["answers", "lies"])
async def test_a_writer_whose_draft_is_shown_has_all_of_the_time(
    monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setattr(drafting, "_SHARE", 0.01)
    policy = way.policy_of({"public": ("*",)}).model_copy(update={"checks": "light"})
    asked: list[str] = []
    writers = {name: Slow(name, behaviour, asked) for name in way.MODELS}
    shown: list[str] = []
    async with time_left(6000):  # a writer's share is 0.05 s
        outcome = await escalate.respond(
            way.QUESTION,
            way.PASSAGES,
            way.EVIDENCE,
            route(way.PLAIN, policy),
            policy,
            writers,
            max_tokens=100,
            spending=Spending(),
            jury=way.JURY,
            show=shown.append,
        )
    assert asked == ["cheap-a"]
    assert outcome.shown
    assert "".join(shown) == outcome.answer.content


async def test_the_first_writer_leaves_a_share_of_the_time_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drafting, "_SHARE", 0.02)
    policy = way.policy_of({"public": ("*",)})

    def writer(name: str, behaviour: str, asked: list[str]) -> way.Writer:
        return (Hanging if behaviour == "hangs" else way.Writer)(name, behaviour, asked)

    async with time_left(11_000):  # of which a second is kept for the last resort
        outcome, asked = await way.outcome_of(
            route(way.PLAIN, policy), policy, ("hangs", "answers", "answers"), writer
        )
    assert asked == ["cheap-a", "cheap-b"]
    assert outcome.answered
    assert any(str(reason).startswith("out_of_time: cheap-a") for reason in outcome.reasons)


# --- what is told of drafts that are not the answer ----------------------------------------------


@pytest.mark.parametrize(
    ("behaviours", "writer", "failed"),
    [
        (("fails", "lies", "answers"), "cheap:cheap-b", True),
        (("declines", "answers", "lies"), "dearer:dear", True),
        (("lies", "answers", "lies"), "cheap:cheap-a", True),
        (("fails", "answers", "answers"), "cheap:cheap-a", False),
        (("declines", "answers", "answers"), "cheap:cheap-a", False),
    ],
)
async def test_failures_are_told_beside_the_writer_whose_draft_has_them(
    behaviours: tuple[str, ...], writer: str, failed: bool
) -> None:
    policy = way.policy_of({"public": ("*",)})
    outcome, _ = await way.outcome_of(route(way.PLAIN, policy), policy, behaviours)
    assert outcome.escalated_from == writer
    assert (not outcome.passed, bool(outcome.failures)) == (failed, failed)


class Shows(way.Writer):
    """Shows its draft at once where it may."""

    async def draft(self, request: DraftRequest) -> Draft:
        draft = await super().draft(request)
        if request.show is not None:
            request.show(draft.text)
        return draft


@pytest.mark.parametrize(
    ("first", "told", "drafts"),
    [
        ("fails", None, [("cheap", False)]),  # cheap-b is shown, and all that is told is of that
        ("lies", "cheap:cheap-a", [("cheap", False), ("dearer", False)]),
    ],
)
async def test_of_a_draft_that_was_shown_every_verdict_is_remembered_and_the_first_is_told(
    first: str, told: str | None, drafts: list[tuple[str, bool]]
) -> None:
    policy = way.policy_of({"public": ("*",)})
    checks = {"cheap": "strict" if first == "lies" else "light", "dearer": "light"}
    tiers = {
        name: tier.model_copy(update={"checks": checks[name]})
        for name, tier in policy.tiers.items()
    }
    light = policy.model_copy(update={"tiers": tiers})
    asked: list[str] = []
    outcome = await escalate.respond(
        way.QUESTION,
        way.PASSAGES,
        way.EVIDENCE,
        route(way.PLAIN, light),
        light,
        {name: Shows(name, first if name == "cheap-a" else "lies", asked) for name in way.MODELS},
        max_tokens=100,
        spending=Spending(),
        jury=way.JURY,
        show=lambda _: None,
    )
    assert outcome.shown
    assert outcome.escalated_from == told
    assert {failure.check for failure in outcome.failures} == {Check.NUMBER}
    assert [(one.tier, one.passed) for one in outcome.verified] == drafts


async def test_the_last_resort_is_among_who_was_asked() -> None:
    policy = way.policy_of({"public": ("*",)})
    outcome, _ = await way.outcome_of(route(way.PLAIN, policy), policy, ("fails",) * 3)
    assert [(one.model, one.ended) for one in outcome.attempts] == [
        *((name, Ended.FAILED) for name in ("cheap-a", "cheap-b", "dear")),
        ("quote", Ended.DRAFTED),
    ]
    assert outcome.cost_nano_dollars == 0
