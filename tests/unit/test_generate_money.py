"""What an answer may cost and take: prices, budgets and stated times in policies and routes."""

from dataclasses import replace
from typing import Any

import pytest

from services.generate.policy.file import PolicyError, parse
from services.generate.policy.pricing import cost
from services.generate.reading.passages import Signals
from services.generate.reading.question import features
from services.generate.routing.features import RESERVE_MS, RoutingFeatures
from services.generate.routing.router import route
from tests.policies import POLICY_TEXT, bent

QUESTION = "Which port does rerank listen on?"
ASKED = RoutingFeatures(QUESTION, features(QUESTION), Signals(documents=1), 0.9)
PRICED = "state: candidate,\n    price: {input: 0, output: 0}}"
BUDGET = "budgets: {answer_nano_dollars: 1000000000}\n"
QUOTE = "quote: {tier: small, kind: extractive, price: {input: 0, output: 0}"


def told_of(text: str) -> list[str]:
    with pytest.raises(PolicyError) as error:
        parse(text, "p")
    return [one.split(": ", 2)[2] for one in error.value.findings]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (PRICED, "state: candidate}", "there is a budget, and model trial has no price"),
        ("models: [small-a]", "models: [small-a, large-a]",
         "model large-a is of tier large, and stands in the chain of small"),
        # trial alone may see it, and stands in no chain; quote may not
        ("secret: [large-b, trial, quote]", "secret: [trial]",
         "class secret has no model that may write for it"),
        (QUOTE, QUOTE + ", state: candidate", "model quote is candidate"),
        (QUOTE, QUOTE + ", state: retired", "model quote is retired"),
        (QUOTE, QUOTE + ", thinking_tokens: 1",
         "kind extractive does not think: leave out thinking_tokens and thinks_first"),
        (QUOTE, QUOTE + ", thinks_first: true",
         "kind extractive does not think: leave out thinking_tokens and thinks_first"),
    ],
)  # fmt: skip
def test_the_lint_refuses_what_would_escape_a_budget_or_never_be_asked(
    old: str, new: str, told: str
) -> None:
    assert told in told_of(bent(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("secret: [large-b, trial, quote]", "secret: [quote]"),  # the last resort may write for it
        (", price: {input: 0, output: 0}}\ntiers", "}\ntiers"),  # who only quotes costs nothing
        (BUDGET, ""),
    ],
)
def test_the_lint_has_nothing_against_what_is_asked_and_paid(old: str, new: str) -> None:
    text = bent(old, new)
    if not new:
        text = text.replace(PRICED, "state: candidate}")
    parse(text, "p")


def test_a_cost_is_exact_and_only_who_quotes_is_free_without_a_price() -> None:
    models = parse(POLICY_TEXT, "p").models
    assert cost(models["small-a"], 3, 10**9) == 300 + 400 * 10**9
    unpriced = {name: one.model_copy(update={"price": None}) for name, one in models.items()}
    assert cost(unpriced["small-a"], 1, 1) is None
    assert cost(unpriced["quote"], 1, 1) == 0


def ruled_out(text: str, **more: Any) -> dict[str, tuple[str, str]]:
    decision = route(replace(ASKED, **more), parse(text, "p"))
    return {one.model: (one.rule, one.why) for one in decision.ruled_out}


def test_under_a_budget_a_model_without_price_is_not_asked() -> None:
    text = bent(BUDGET, "").replace(PRICED, "state: candidate}")
    assert "trial" not in ruled_out(text, requested="trial")
    assert ruled_out(text, requested="trial", budget=7)["trial"] == (
        "budget", "it has no price, and the budget is 7 nano-dollars"
    )  # fmt: skip


def test_what_a_model_may_think_counts_in_its_window_and_its_cost() -> None:
    text = bent("context: 4096", "context: 4096\n    thinking_tokens: 3000")
    asked = {"prompt_tokens": 1000, "draft_tokens": 96}
    assert "small-a" not in ruled_out(text, **asked)
    rule, why = ruled_out(text, **{**asked, "draft_tokens": 97})["small-a"]
    assert (rule, why) == ("context", "4097 tokens may be needed, it has room for 4096")
    costs = 1000 * 100 + (96 + 3000) * 400
    assert "small-a" not in ruled_out(text, budget=costs, **asked)
    assert ruled_out(text, budget=costs - 1, **asked)["small-a"][0] == "budget"


@pytest.mark.parametrize(("stated", "tokens"), [("", 1600), ("image_tokens: 1000", 1000)])
def test_an_image_counts_in_window_and_cost_as_its_model_says(stated: str, tokens: int) -> None:
    text = bent("context: 4096", f"context: 4096\n    {stated}")
    asked = {"images": 2, "prompt_tokens": 4000 - 2 * tokens, "draft_tokens": 96}
    assert "small-a" not in ruled_out(text, **asked)
    rule, why = ruled_out(text, **{**asked, "draft_tokens": 97})["small-a"]
    assert (rule, why) == ("context", "4097 tokens may be needed, it has room for 4096")
    costs = 4000 * 100 + 96 * 400
    assert "small-a" not in ruled_out(text, budget=costs, **asked)
    assert ruled_out(text, budget=costs - 1, **asked)["small-a"][0] == "budget"


@pytest.mark.parametrize("tokens", [0, -1, 50_001])
def test_an_image_counts_something_and_no_more_than_a_server_is_believed(tokens: int) -> None:
    [found] = told_of(bent("context: 4096", f"context: 4096\n    image_tokens: {tokens}"))
    assert "should be" in found


def test_a_stated_time_has_to_fit_before_the_reserve_of_the_last_resort() -> None:
    takes = 500  # as small-a states it
    assert "small-a" not in ruled_out(POLICY_TEXT, remaining_ms=RESERVE_MS + takes)
    rule, why = ruled_out(POLICY_TEXT, remaining_ms=RESERVE_MS + takes - 1)["small-a"]
    assert (rule, why) == ("deadline", "it takes 500 ms, 499 ms are left for it")
    assert "large-a" not in ruled_out(POLICY_TEXT, remaining_ms=1.0)  # it states none


def test_the_last_resort_is_kept_from_whom_it_is_forbidden_and_not_from_who_is_in_a_hurry() -> None:
    policy = parse(POLICY_TEXT, "p")
    assert route(replace(ASKED, tiers=frozenset({"large"})), policy).last_resort is None
    assert route(replace(ASKED, tiers=frozenset({"small"})), policy).last_resort == "quote"
    slow = parse(bent(QUOTE, QUOTE + ", latency_ms: 50, capabilities: [tools]"), "p")
    assert route(replace(ASKED, remaining_ms=100.0), slow).last_resort == "quote"
