"""Features of a question and the route they lead to."""

import pytest

from services.generate.answer.passages import Signals
from services.generate.routing.features import AnswerKind, Intent, features
from services.generate.routing.policy import Policy, Tier
from services.generate.routing.router import RoutingFeatures, route

POLICY = Policy(min_confidence=0.43, min_relevance=0.31)
SIGNALS = Signals(top_score=0.8, margin=0.1, agreement=0.5, coverage=0.9, documents=3)


def seen(question: str, confidence: float, requested: Tier | None = None) -> RoutingFeatures:
    return RoutingFeatures(features(question), SIGNALS, confidence, requested)


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
    chosen = route(seen("When was it signed?", 0.8), POLICY)
    assert chosen.tier is Tier.UTILITY
    assert [reason.split(":")[0] for reason in chosen.reasons] == ["intent", "good_evidence"]


@pytest.mark.parametrize(
    "question", ["Why was it signed?", "Compare both treaties.", "Summarise the treaty."]
)
def test_synthesis_goes_to_reasoning(question: str) -> None:
    assert route(seen(question, 0.4), POLICY).tier is Tier.REASONING


def test_a_long_question_is_more_than_a_lookup() -> None:
    chosen = route(seen("When " + "and where " * 30 + "was it?", 0.8), POLICY)
    assert chosen.tier is Tier.REASONING
    assert any(reason.startswith("long_question: ") for reason in chosen.reasons)


def test_weak_evidence_asks_no_writer_unless_reasoning_reads_better_than_a_match() -> None:
    weak = seen("When was it signed?", 0.2)
    assert route(weak, POLICY).tier is None
    strong = Policy(min_confidence=0.43, min_relevance=0.31, strong_reasoning=True)
    assert route(weak, strong).tier is Tier.REASONING
    assert route(weak, POLICY).reasons[-1].startswith("weak_evidence: confidence 0.20, bar 0.43")


@pytest.mark.parametrize("tier", list(Tier))
def test_an_explicit_tier_wins_over_everything_but_no_passages(tier: Tier) -> None:
    chosen = route(seen("Why?", 0.0, tier), POLICY)
    assert chosen.tier is tier
    assert chosen.reasons == (f"requested: model {tier}",)
    nothing = RoutingFeatures(features("Why?"), Signals(), 0.0, tier)
    assert route(nothing, POLICY).tier is None
