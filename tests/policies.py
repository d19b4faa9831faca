"""A policy of two tiers with everything in it that a policy can have; tests bend it, and route
questions by it."""

from services.generate.reading.passages import Signals
from services.generate.reading.question import features
from services.generate.routing.features import RoutingFeatures

POLICY_TEXT = """\
version: 1
classes: [open, secret]
default_class: open
detect: {email: secret}
corpora: {attic: secret}
models:
  small-a:
    tier: small
    kind: openai
    url: http://127.0.0.1:1/v1
    model: s1
    version: "7"
    price: {input: 100, output: 400}
    context: 4096
    capabilities: []
    latency_ms: 500
  large-a: {tier: large, kind: openai, url: http://127.0.0.1:1/v1, model: l1,
    price: {input: 0, output: 0}}
  large-b: {tier: large, kind: openai, url: http://127.0.0.1:1/v1, model: l2,
    price: {input: 0, output: 0}}
  trial: {tier: large, kind: openai, url: http://127.0.0.1:1/v1, model: t, state: candidate,
    price: {input: 0, output: 0}}
  gone: {tier: small, kind: openai, url: http://127.0.0.1:1/v1, model: g, state: retired,
    instead: small-a}
  quote: {tier: small, kind: extractive, price: {input: 0, output: 0}}
tiers:
  small: {models: [small-a], checks: light}
  large: {models: [large-a, large-b]}
compliance:
  open: ["*"]
  secret: [large-b, trial, quote]
rules:
  - name: contracts
    when: {keywords: [contract], data_class: [open]}
    then: {tier: large, critical: true}
scored:
  bias: 0.2
  weights: {words: 0.01, confidence: -1.0, intent.explain: 0.5}
  keywords: [{words: [prove, derive], weight: 1.5}]
  start: small
  bars: [{tier: large, score: 1.0}]
escalation: {max_hops: 1}
budgets: {answer_nano_dollars: 1000000000}
last_resort: quote
"""


def bent(old: str, new: str) -> str:
    """The policy with another text in place of one that it has."""
    assert old in POLICY_TEXT
    return POLICY_TEXT.replace(old, new)


SIGNALS = Signals(top_score=0.8, margin=0.1, agreement=0.5, coverage=0.9, documents=3)


def seen(question: str, confidence: float) -> RoutingFeatures:
    """What is known of a question without any marks."""
    return RoutingFeatures(question, features(question), SIGNALS, confidence)
