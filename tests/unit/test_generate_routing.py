"""Features of a question and the decision they lead to."""

from dataclasses import replace
from typing import Any

import pytest

from services.generate.policy.file import default_policy, parse
from services.generate.reading.evidence import MIN_CONFIDENCE, MIN_RELEVANCE
from services.generate.reading.passages import Signals
from services.generate.reading.question import AnswerKind, Intent, features
from services.generate.routing.language import language
from services.generate.routing.router import route
from tests.policies import POLICY_TEXT, SIGNALS, seen

POLICY = default_policy()


@pytest.mark.parametrize(
    ("question", "intent"),
    [
        ("When was the treaty signed?", Intent.LOOKUP),
        ("Which port does embed listen on?", Intent.LOOKUP),
        ("How many services are there?", Intent.LOOKUP),
        ("How long does a start take?", Intent.LOOKUP),
        ("treaty date", Intent.LOOKUP),
        ("Why does the index get rebuilt?", Intent.EXPLAIN),
        ("How does ingestion work?", Intent.EXPLAIN),
        ("Explain curation.", Intent.EXPLAIN),
        ("What are the consequences of a crash?", Intent.EXPLAIN),
        ("Compare BM25 and dense search.", Intent.COMPARE),
        ("What is the difference between embed and rerank?", Intent.COMPARE),
        ("BM25 vs. dense?", Intent.COMPARE),
        ("Summarise the chapter on durability.", Intent.SUMMARISE),
        ("Give me an overview of the services", Intent.SUMMARISE),
        ("", Intent.LOOKUP),
    ],
)
def test_the_intent_of_a_question_is_read_from_its_words(question: str, intent: Intent) -> None:
    assert features(question).intent is intent


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who wrote the first program?", AnswerKind.PERSON),
        ("When was it?", AnswerKind.TIME),
        ("In what year did it end?", AnswerKind.TIME),
        ("Where is the desk?", AnswerKind.PLACE),
        ("How many chunks are there?", AnswerKind.NUMBER),
        ("What is the default port?", AnswerKind.NUMBER),
        ("What does embed do?", AnswerKind.ANY),
    ],
)
def test_the_kind_of_answer_is_read_from_the_words(question: str, kind: AnswerKind) -> None:
    assert features(question).asks_for is kind


def test_a_lookup_with_good_evidence_goes_to_the_cheapest_tier() -> None:
    chosen = route(seen("When was it signed?", 0.9), POLICY)
    assert (chosen.tier, chosen.model) == ("utility", "utility-writer")
    assert [str(reason).split(":")[0] for reason in chosen.reasons] == ["intent", "good_evidence"]
    assert "confidence 0.90" in chosen.reasons[-1].seen


@pytest.mark.parametrize(
    "question", ["Why was it signed?", "Compare both treaties.", "Summarise the treaty."]
)
def test_synthesis_goes_to_reasoning(question: str) -> None:
    chosen = route(seen(question, MIN_RELEVANCE), POLICY)
    assert (chosen.tier, chosen.rule) == ("reasoning", "synthesis")


def test_a_long_question_is_more_than_a_lookup() -> None:
    chosen = route(seen("When " + "and where " * 30 + "was it?", 0.9), POLICY)
    assert (chosen.tier, chosen.rule) == ("reasoning", "long_question")


@pytest.mark.parametrize("intent", ["When was it signed?", "Why was it signed?"])
def test_weak_evidence_asks_no_writer_unless_reasoning_is_served(intent: str) -> None:
    weak = seen(intent, min(MIN_CONFIDENCE, MIN_RELEVANCE) - 0.01)
    chosen = route(weak, POLICY)
    assert (chosen.tier, chosen.declines, chosen.rule) == (None, True, "weak_evidence")
    served = route(replace(weak, served=frozenset({"reasoning"})), POLICY)
    assert served.tier == "reasoning"


@pytest.mark.parametrize("tier", ["utility", "reasoning"])
def test_an_explicit_tier_wins_over_everything_but_no_passages(tier: str) -> None:
    asked = replace(seen("Why?", 0.0), requested=tier)
    chosen = route(asked, POLICY)
    assert chosen.tier == tier
    assert [str(reason) for reason in chosen.reasons] == [f"requested: model {tier}"]
    nothing = route(replace(asked, signals=Signals()), POLICY)
    assert (nothing.tier, nothing.declines, nothing.rule) == (None, True, "no_passages")


def test_a_model_is_asked_by_its_name_alone() -> None:
    chosen = route(replace(seen("Why?", 0.0), requested="extractive"), POLICY)
    assert (chosen.tier, chosen.chain) == ("utility", ("extractive",))


def test_a_decision_carries_the_policy_and_is_always_the_same() -> None:
    features = seen("Why was it signed?", 0.6)
    assert route(features, POLICY) == route(features, default_policy())
    assert route(features, POLICY).policy == POLICY.fingerprint


# --- another policy ----------------------------------------------------------------------------


def test_the_first_rule_that_holds_decides_and_says_what_it_saw() -> None:
    contract = seen("Does the Contract hold?", 0.9)
    chosen = route(contract, parse(POLICY_TEXT, "p"))
    assert (chosen.rule, chosen.tier, chosen.checks) == ("contracts", "large", "strict")
    assert "keyword contract" in chosen.reasons[-1].seen
    assert route(seen("Do contractions hold?", 0.9), parse(POLICY_TEXT, "p")).rule == "scored"


def test_a_score_is_a_sum_of_named_weights_against_bars() -> None:
    policy = parse(POLICY_TEXT, "p")
    easy = route(seen("When was it signed?", 0.9), policy)
    assert easy.tier == "small"
    hard = route(seen("Prove why it was signed so late.", 0.5), policy)
    weights = {reason.name: reason.weight for reason in hard.reasons}
    assert weights["keyword"] == 1.5
    assert weights["confidence"] == pytest.approx(-0.5)
    assert hard.tier == "large"
    assert hard.reasons[-1].name == "scored"


def test_a_tier_whose_models_are_ruled_out_is_skipped_upwards_and_each_is_named() -> None:
    policy = parse(POLICY_TEXT, "p")
    chosen = route(replace(seen("When was it signed?", 0.9), mark="secret"), policy)
    assert (chosen.tier, chosen.model, chosen.data_class) == ("large", "large-b", "secret")
    assert {(one.model, one.rule) for one in chosen.ruled_out} == {
        ("small-a", "compliance"),
        ("large-a", "compliance"),
        ("trial", "candidate"),
        ("gone", "retired"),
    }
    assert any(reason.name == "tier_skipped" for reason in chosen.reasons)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"tiers": frozenset({"large"})}, "allowed_tiers"),
        ({"needs": frozenset({"tools"})}, "capability"),
        ({"prompt_tokens": 4000, "draft_tokens": 100}, "context"),
        ({"budget": 10, "prompt_tokens": 1}, "budget"),
        ({"remaining_ms": 100.0}, "deadline"),
    ],
)
def test_what_a_request_needs_and_allows_rules_models_out(
    change: dict[str, Any], rule: str
) -> None:
    features = replace(seen("When was it signed?", 0.9), **change)
    chosen = route(features, parse(POLICY_TEXT, "p"))
    assert {one.model: one.rule for one in chosen.ruled_out}["small-a"] == rule
    assert chosen.model != "small-a"


def test_a_writer_inside_the_process_takes_no_tools_whatever_the_policy_says() -> None:
    policy = parse(POLICY_TEXT, "p")
    asked = replace(seen("Prove it.", 0.9), needs=frozenset({"tools"}))
    assert route(asked, policy).model == "large-a"  # which states no capabilities
    chosen = route(replace(asked, embedded=frozenset({"large-a"})), policy)
    assert chosen.model == "large-b"
    assert ("large-a", "capability") in {(one.model, one.rule) for one in chosen.ruled_out}


def test_without_passages_only_tools_are_a_reason_to_ask_anybody() -> None:
    nothing = replace(seen("Prove it.", 0.9), signals=replace(SIGNALS, documents=0))
    policy = parse(POLICY_TEXT, "p")
    assert route(nothing, policy).declines
    assert not route(replace(nothing, needs=frozenset({"tools"})), policy).declines
    assert route(replace(nothing, needs=frozenset({"schema"})), policy).declines


def test_a_candidate_writes_only_where_it_is_named() -> None:
    policy = parse(POLICY_TEXT, "p")
    asked = replace(seen("When was it signed?", 0.9), requested="trial")
    assert route(asked, policy).chain == ("trial",)


def test_escalation_goes_to_dearer_tiers_and_as_far_as_the_policy_has_hops() -> None:
    policy = parse(POLICY_TEXT, "p")
    chosen = route(seen("When was it signed?", 0.9), policy)
    assert [(step.tier, step.chain) for step in chosen.escalation] == [
        ("large", ("large-a", "large-b"))
    ]
    none = parse(POLICY_TEXT.replace("max_hops: 1", "max_hops: 0"), "p")
    assert route(seen("When was it signed?", 0.9), none).escalation == ()


def test_each_tier_is_checked_by_its_own_profile_and_a_critical_answer_strictly() -> None:
    policy = parse(POLICY_TEXT, "p")
    chosen = route(seen("When was it signed?", 0.9), policy)
    assert (chosen.checks, [step.checks for step in chosen.escalation]) == ("light", ["strict"])
    huge = "{tier: huge, kind: openai, url: http://127.0.0.1:1/v1, model: h, price: {input: 0, "
    huge += "output: 0}}"
    text = POLICY_TEXT.replace("tiers:\n", f"  huge-a: {huge}\ntiers:\n", 1)
    text = text.replace(
        "compliance:\n", "  huge: {models: [huge-a], checks: off}\ncompliance:\n", 1
    )
    only = {"tiers": frozenset({"huge"})}
    plain, critical = "When was it signed?", "Is the contract signed?"
    assert route(replace(seen(plain, 0.9), **only), parse(text, "p")).checks == "off"
    assert route(replace(seen(critical, 0.9), **only), parse(text, "p")).checks == "strict"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the weather in the city of Bern?", "en"),
        ("Wann wurde der Vertrag unterschrieben und von wem?", "de"),
        ("Quelle est la date de la signature et pourquoi?", "fr"),
        ("¿Cuándo y por qué se firmó el tratado?", "es"),
        ("条約はいつ署名されましたか", "ja"),
        ("когда", "ru"),
        ("treaty date", ""),
        ("", ""),
    ],
)
def test_the_language_is_read_from_script_and_grammar(text: str, code: str) -> None:
    assert language(text) == code
