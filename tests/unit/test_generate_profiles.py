"""Profiles of verification that a policy adds, and what a draft is held against by them."""

import pytest

from services.generate.policy.file import PolicyError, parse
from services.generate.reading.passages import Passage
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.profile import PROFILES, Profile
from services.generate.verification.verify import verify
from tests.policies import POLICY_TEXT, bent

TEXT = "Rollo, a Viking leader, founded the Duchy of Normandy in 911. It paid no tribute."
PASSAGES = [Passage(1, "n#0", "n", "handbook", "Normandy", None, TEXT, 0.9)]
OWN = "profiles: {own: {checks: [%s]}}\n"


def own(checks: str) -> Profile:
    """The profile with these checks, as a policy's file gives it."""
    return parse(POLICY_TEXT + OWN % checks, "p.yaml").profile("own")


def failed(draft: str, checks: str) -> set[Check]:
    verdict = verify(draft, PASSAGES, profile=own(checks))
    return {failure.check for failure in verdict.failures}


def findings(text: str) -> list[str]:
    with pytest.raises(PolicyError) as told:
        parse(text, "p.yaml")
    return [one.partition(": ")[2] for one in told.value.findings]


def test_those_that_are_there_anyway_need_no_model() -> None:
    assert all(Check.ENTAILMENT not in one.checks for one in PROFILES.values())
    assert [name for name, one in PROFILES.items() if one.buffers] == ["strict"]
    assert [name for name, one in PROFILES.items() if one.by_sentence] == ["strict"]


def test_a_policy_names_its_own_in_tiers_rules_and_as_a_whole() -> None:
    text = bent("checks: light", "checks: own").replace("true}", "true, checks: strict}")
    policy = parse(text + "checks: own\n" + OWN % "quote, citation", "p.yaml")
    assert policy.profile(policy.checks) == policy.profile(policy.tiers["small"].checks or "")
    assert policy.profile("own").checks == {Check.QUOTE, Check.CITATION}
    assert policy.profile("own").buffers is True
    assert policy.profile("light") is PROFILES["light"]


def test_the_order_of_its_checks_does_not_count() -> None:
    one, other = (
        parse(POLICY_TEXT + OWN % checks, "p.yaml") for checks in ("quote, date", "date, quote")
    )
    assert one.fingerprint == other.fingerprint != parse(POLICY_TEXT, "p.yaml").fingerprint


@pytest.mark.parametrize(
    ("draft", "checks", "fails"),
    [
        ("Rollo founded Normandy in 912 [1].", "citation, number", {Check.NUMBER}),
        ("Rollo founded Normandy in 912 [1].", "citation, name", None),
        ("Rollo founded Normandy in 912 [1].", "citation, quote", set()),
        ("Bob founded the Duchy of Normandy in 911 [1].", "citation, number", set()),
        (
            "Bob founded the Duchy of Normandy in 911 [1].",
            "support, name",
            {Check.SUPPORT, Check.NAME},
        ),
        (
            "Bob founded the Duchy of Normandy in 912 [1].",
            "support, number",
            {Check.SUPPORT, Check.NUMBER},
        ),
        ("Normandy in 911 was founded by Rollo [1].", "support, name, order", {Check.ORDER}),
        ("Normandy in 911 was founded by Rollo [1].", "support, name", set()),
        ("Rollo founded the Duchy of Normandy [7].", "citation", {Check.CITATION}),
    ],
)
def test_only_its_checks_are_made(draft: str, checks: str, fails: set[Check] | None) -> None:
    if fails is None:
        assert "add support" in findings(POLICY_TEXT + OWN % checks)[0]
    else:
        assert failed(draft, checks) == fails


def test_without_the_check_of_citations_invented_markers_are_taken_out() -> None:
    verdict = verify("Rollo founded Normandy in 911 [1][7].", PASSAGES, profile=own("number"))
    assert verdict.passed
    assert [claim.cited for claim in verdict.claims] == [(1,)]


@pytest.mark.parametrize("checks", ["number", "citation", "quote, refusal"])
def test_no_profile_lets_a_draft_through_that_says_nothing(checks: str) -> None:
    assert failed("# Normandy", checks) == {Check.EMPTY}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (OWN % "magic", "profiles.own.checks.0: Input should be"),
        (OWN % "", "profiles.own.checks: Tuple should have at least 1 item"),
        (OWN % "order", "profiles.own: order: made of the source sentence"),
        (OWN % "quote, tools, schema", "profiles.own: schema, tools: made of tool calls and JSON"),
        (OWN % "citation, entailment", "profiles.own.checks: entailment needs a model"),
        (
            OWN % "entailment" + "grounding: {classes: [open]}",
            "profiles.own: entailment: made of the passage that a claim cites: add citation",
        ),
        ("profiles: {strict: {checks: [quote]}}", "profiles.strict: strict is a profile that is"),
        ("checks: own", "checks: there is no profile named own"),
        ("grounding: {classes: [closed]}", "grounding.classes.0: there is no class named closed"),
        (
            "grounding: {classes: [secret]}",
            "grounding.classes: the model may see data of class secret, but not open",
        ),
        ("grounding: {classes: [open], bar: 1.5}", "grounding.bar: Input should be less than"),
    ],
)
def test_what_does_not_fit_together_is_refused(text: str, told: str) -> None:
    assert findings(POLICY_TEXT + text)[0].startswith(told)


@pytest.mark.parametrize(
    ("checks", "buffers", "good"),
    [
        (", ".join(sorted(PROFILES["strict"].checks | {Check.ENTAILMENT})), "true", True),
        (", ".join(sorted(PROFILES["strict"].checks)), "false", False),
        ("citation, support", "true", False),
    ],
)
def test_a_critical_rule_takes_what_is_as_strict_as_strict(
    checks: str, buffers: str, good: bool
) -> None:
    text = bent("critical: true", "critical: true, checks: own") + (
        f"profiles: {{own: {{checks: [{checks}], buffers: {buffers}}}}}\n"
        "grounding: {classes: [open]}\n"
    )
    if good:
        assert parse(text, "p.yaml").rules[0].then.checks == "own"
    else:
        assert findings(text) == ["rules.0.then: critical rule contracts is not checked strictly"]
