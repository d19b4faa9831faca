"""What the policy may say of a model, the gate it has to pass, its life, and the inventory."""

import csv
import io
import itertools
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.policy.file import PolicyError, parse
from services.generate.policy.inventory import Entry, inventory, to_csv
from services.generate.policy.lifecycle import NEXT, illegal, states_of, transitions
from services.generate.policy.models import State
from services.generate.policy.schema import Policy
from tests.policies import POLICY_TEXT, bent

POLICY = parse(POLICY_TEXT, "p")
SMALL = "    latency_ms: 500\n"
KNOWN = """\
    benchmarks:
      grounded-qa: {score: 0.82, date: 2026-10-01, source: "https://example.org/report"}
    certifications: [ISO 27001, SOC 2]
    data_residency: [DE, EU]
    risk:
      - {item: licence, points: 10, why: not for medical use}
      - {item: origin, points: 15, why: training data is not told}
    rollback: gone
    owner: "=cmd()"
    notes: "weighs little; quick"
"""


def told_of(text: str) -> list[str]:
    with pytest.raises(PolicyError) as error:
        parse(text, "p.yaml")
    return error.value.findings


def known(**more: str) -> str:
    """A policy whose model small-a has all fields. more: lines in place of those of KNOWN."""
    text = bent(SMALL, SMALL + KNOWN).replace("rollback: gone", "rollback: spare")
    text = text.replace("  gone: {", f"  spare: {SPARE}\n  gone: {{")
    for old, new in more.items():
        assert old in text
        text = text.replace(old, new)
    return text


SPARE = (
    "{tier: small, kind: openai, url: http://127.0.0.1:1/v1, model: sp, state: candidate, "
    "price: {input: 0, output: 0}}"
)


# --- the fields --------------------------------------------------------------------------------


def test_a_model_tells_all_that_is_known_of_it_and_its_risk_is_summed_up() -> None:
    model = parse(known(), "p").models["small-a"]
    assert model.benchmarks["grounded-qa"].date == date(2026, 10, 1)
    assert model.certifications == ("ISO 27001", "SOC 2")
    assert model.risk_points == 25
    assert POLICY.models["small-a"].risk_points is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("score: 0.82", "score: 82", "models.small-a.benchmarks.grounded-qa.score: Input should"),
        ("date: 2026-10-01, ", "", "models.small-a.benchmarks.grounded-qa.date: Field required"),
        ("2026-10-01", "lately", "models.small-a.benchmarks.grounded-qa.date: Input should be"),
        (', source: "https://example.org/report"', "", "grounded-qa.source: Field required"),
        ("points: 15", "points: -1", "models.small-a.risk.1.points: Input should be greater"),
        ("points: 15", "points: 91", "the points of risk sum up to 101, over 100"),
        ("item: origin", "item: licence", "an item of risk stands twice"),
        ("why: not for medical use", 'why: ""', "models.small-a.risk.0.why: String should have"),
        ("[DE, EU]", "Germany", "models.small-a.data_residency: Input should be a valid tuple"),
        ("rollback: spare", "rollback: x", "models.small-a.rollback: there is no model named x"),
        ("rollback: spare", "rollback: small-a", "can't be gone back to from itself"),
        ("rollback: spare", "rollback: large-a", "large-a is of tier large, small-a of small"),
        ("rollback: spare", "rollback: gone", "model gone is retired"),
        ("url: http://127.0.0.1:1/v1\n", "url: http://joe:pw@127.0.0.1:1/v1\n",
         "must hold no user, password or query"),
        ("url: http://127.0.0.1:1/v1\n", "url: http://127.0.0.1:1/v1?key=k1\n",
         "must hold no user, password or query"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_told_by_its_place(old: str, new: str, told: str) -> None:
    found = told_of(known(**{old: new}))
    assert any(told in one for one in found), found
    assert not any(secret in one for one in found for secret in ("pw@", "k1"))


# --- the gate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ("{tiers: {small: {benchmarks: {grounded-qa: 0.9}}}}",
         ["model small-a can't be active: its grounded-qa is 0.82, the gate asks for 0.9 "
          "for tier small"]),
        ("{tiers: {small: {benchmarks: {grounded-qa: 0.82}}}}", []),
        ("{tiers: {small: {benchmarks: {speed: 0.1}}}}",
         ["model small-a can't be active: it has no benchmark speed, the gate asks for 0.1 "
          "for tier small"]),
        ("{tiers: {small: {max_risk: 24}}}",
         ["model small-a can't be active: its risk is 25, the gate allows 24 for tier small"]),
        ("{tiers: {small: {max_risk: 25}}}", []),
        ("{max_risk: 50}", [
            f"model {name} can't be active: its risk is not assessed, the gate allows 50"
            for name in ("large-a", "large-b")]),
        ("{classes: {secret: {max_risk: 50}}}",
         ["model large-b can't be active: its risk is not assessed, the gate allows 50 "
          "for data of class secret"]),
        ("{tiers: {tiny: {max_risk: 50}}}", ["there is no tier named tiny"]),
        ("{classes: {tiny: {max_risk: 50}}}", ["there is no class named tiny"]),
    ],
)  # fmt: skip
def test_a_model_that_does_not_pass_the_gate_can_not_be_active(gate: str, told: list[str]) -> None:
    text = known().replace("kind: extractive, ", "kind: extractive, risk: [], benchmarks: "
                           "{grounded-qa: {score: 1, date: 2026-10-01, source: own}, speed: "
                           "{score: 1, date: 2026-10-01, source: own}}, ")  # fmt: skip
    text += f"gate: {gate}\n"
    found = [one.split(": ", 2)[2] for one in told_of(text)] if told else []
    if not told:
        parse(text, "p")
    assert found == told


# --- the life of a model -----------------------------------------------------------------------


LEGAL = {
    ("candidate", "active"), ("candidate", "retired"), ("active", "deprecated"),
    ("deprecated", "active"), ("deprecated", "retired"),
}  # fmt: skip


def in_states(**states: State) -> Policy:
    """A policy of models in these states; only the router would mind that none is active."""
    models = {
        name: POLICY.models["small-a"].model_copy(update={"state": state})
        for name, state in states.items()
    }
    return POLICY.model_copy(update={"models": models})


@given(
    before=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(State)),
    after=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(State)),
)
def test_exactly_the_legal_changes_pass_and_no_other_is_told(
    before: dict[str, State], after: dict[str, State]
) -> None:
    changes = transitions(before, in_states(**after))
    assert {one.model: one.after for one in changes} == {
        name: state for name, state in after.items() if before.get(name) is not state
    }
    wrong = {
        name
        for name, state in after.items()
        if name in before
        and before[name] is not state
        and (before[name].value, state.value) not in LEGAL
    }
    found = illegal(changes)
    assert {one.place for one in found} == {("models", name, "state") for name in wrong}
    for one in found:
        name = str(one.place[1])
        assert f"was {before[name]} and can't become {after[name]}" in one.message


def test_retired_is_final_and_every_state_is_reached_from_candidate() -> None:
    assert NEXT[State.RETIRED] == frozenset()
    reached = {State.CANDIDATE}
    for _ in State:
        reached |= set(itertools.chain.from_iterable(NEXT[state] for state in reached))
    assert reached == set(State)


def test_an_illegal_change_has_its_line_in_the_file() -> None:
    before = states_of(POLICY)
    text = bent("state: retired", "state: active, price: {input: 0, output: 0}")
    with pytest.raises(PolicyError) as error:
        parse(text, "p.yaml", lambda policy: illegal(transitions(before, policy)))
    line = text[: text.index("  gone:")].count("\n") + 1
    assert error.value.findings == [
        f"p.yaml:{line}: models.gone.state: model gone was retired and can't become active: "
        "give the model a new name"
    ]


# --- the inventory -----------------------------------------------------------------------------


def entries(text: str) -> dict[str, Entry]:
    since = {"small-a": datetime(2026, 11, 1, tzinfo=UTC)}
    found = inventory(parse(text, "p"), since, lambda _, model: model.model)
    return {one.name: one for one in found.models}


def test_the_inventory_tells_what_a_model_may_see_where_it_stands_and_what_it_lacks() -> None:
    gate = "gate: {tiers: {small: {max_risk: 30}, large: {max_risk: 30}}}\n"
    risk = {name: f"model: {name}, risk: []," for name in ("l1", "l2")}
    text = known(**{f"model: {name},": new for name, new in risk.items()}) + gate
    text = text.replace("kind: extractive, ", "kind: extractive, risk: [], ")
    found = entries(text)
    assert (found["small-a"].classes, found["large-b"].classes) == (("open",), ("open", "secret"))
    assert [found[name].chain for name in ("large-a", "large-b", "trial")] == [1, 2, None]
    assert [name for name, one in found.items() if one.last_resort] == ["quote"]
    assert (found["small-a"].gate, found["small-a"].risk_score) == ("passed", 25)
    assert (found["trial"].gate, found["trial"].state) == ("refused", "candidate")
    assert found["trial"].shortfalls == (
        "its risk is not assessed, the gate allows 30 for tier large",
    )


def test_the_table_has_every_model_and_no_cell_that_a_spreadsheet_would_compute() -> None:
    policy = parse(known(**{'version: "7"': 'version: "@SUM(1)"'}), "p")
    since = {"small-a": datetime(2026, 11, 1, tzinfo=UTC)}
    table = to_csv(inventory(policy, since, lambda _, model: model.model))
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(table, newline=""))}
    assert list(rows) == list(policy.models)
    small = rows["small-a"]
    assert (small["owner"], small["version"]) == ("'=cmd()", "'@SUM(1)")
    assert small["risk"] == (
        "licence 10 (not for medical use); origin 15 (training data is not told)"
    )
    assert small["benchmarks"] == "grounded-qa 0.82 (2026-10-01, https://example.org/report)"
    assert (small["price"], small["since"]) == ("100 in, 400 out", "2026-11-01T00:00:00+00:00")
    assert (rows["large-a"]["risk"], rows["large-a"]["certifications"]) == ("", "none")


@given(st.text(min_size=1, max_size=40))
def test_no_owner_begins_a_formula_whatever_it_is(owner: str) -> None:
    model = POLICY.models["small-a"].model_copy(update={"owner": owner})
    found = inventory(
        POLICY.model_copy(update={"models": {"small-a": model}}), {}, lambda _, model: model.model
    )
    [row] = csv.DictReader(io.StringIO(to_csv(found), newline=""))
    assert row["owner"] in (owner, f"'{owner}")
    assert not row["owner"].startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
