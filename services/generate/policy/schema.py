"""The policy file as frozen values. What each part means is told in docs/concepts/policy.md.

These models say what a file may hold, part by part; whether the parts fit together is the lint's.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BeforeValidator, Field, model_validator

from services.generate.policy.checking import Checking, Grounding, ProfileName, profile_of
from services.generate.policy.models import Gate, Model, Name, NanoDollars, Part
from services.generate.reading.evidence import MIN_CONFIDENCE, MIN_RELEVANCE
from services.generate.reading.question import AnswerKind, Intent
from services.generate.reading.sensitivity import Sensitive
from services.generate.verification.checks.profile import Profile

AUTO = "auto"
NOBODY = "none"  # what a rule says whose questions no writer is asked
# Bars of the evidence's confidence that are calibrated in code, under the names a file gives them.
_BARS = {"answers": MIN_CONFIDENCE, "relevant": MIN_RELEVANCE}


def _as_bar(value: object) -> object:
    if isinstance(value, str):
        if value not in _BARS:
            raise ValueError(f"must be a number, or one of {', '.join(_BARS)}")
        return _BARS[value]
    return value


Bar = Annotated[float, BeforeValidator(_as_bar)]


class EscalationReason(StrEnum):
    """All that an answer may be escalated for: the first three after a draft, the others before."""

    VALIDATOR_FAILED = "validator_failed"
    TIER_UNAVAILABLE = "tier_unavailable"
    LOW_CONFIDENCE = "low_confidence"
    POLICY_UNCERTAIN = "policy_uncertain"
    FLAGGED_COMPLEX = "flagged_complex"
    SENSITIVE_DOMAIN = "sensitive_domain"


class Tier(Part):
    """A class of writers. models: the first is asked, the others are its fallbacks, in order.

    hedge_ms: if a model has begun no text after so long, the next one is asked, too; None: never.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    checks: ProfileName | None = None
    hedge_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None


class Range(Part):
    """From `min` on and below `below`."""

    min: Bar | None = None
    below: Bar | None = None

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.min is None and self.below is None:
            raise ValueError("a range has min, below or both")
        if self.min is not None and self.below is not None and self.min >= self.below:
            raise ValueError("nothing is from min on and below below")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` is in it."""
        return (self.min is None or value >= self.min) and (
            self.below is None or value < self.below
        )

    def __str__(self) -> str:
        parts = [f"from {self.min:g}"] if self.min is not None else []
        return " ".join(parts + ([f"below {self.below:g}"] if self.below is not None else []))


# The conditions that are ranges, which are also what a score may weigh, by what they are from:
SHARES = ("confidence", "top_score", "margin", "agreement", "coverage")  # from 0 to 1
COUNTS = ("words", "tokens", "turns", "documents")  # from 0 on
NUMBERS = (*COUNTS, *SHARES)
# What else a score may weigh: what holds or does not, and how well a tier did, by `success.TIER`.
FLAGS = ("tools", "schema", "vision", "flagged")
SUCCESS = "success"


class TierRange(Range):
    """A range of something that each tier has of its own."""

    tier: str


Some = Field(min_length=1)


class When(Part):
    """The conditions of a rule; all that are given must hold. None given: it always holds."""

    intent: Annotated[tuple[Intent, ...], Some] | None = None
    asks_for: Annotated[tuple[AnswerKind, ...], Some] | None = None
    language: Annotated[tuple[str, ...], Some] | None = None
    data_class: Annotated[tuple[str, ...], Some] | None = None
    keywords: Annotated[tuple[Annotated[str, Some], ...], Some] | None = None
    flagged: bool | None = None
    tools: bool | None = None
    schema_: Annotated[bool | None, Field(alias="schema")] = None
    vision: bool | None = None
    served: str | None = None
    words: Range | None = None
    tokens: Range | None = None
    turns: Range | None = None
    confidence: Range | None = None
    top_score: Range | None = None
    margin: Range | None = None
    agreement: Range | None = None
    coverage: Range | None = None
    documents: Range | None = None
    success: TierRange | None = None


class Then(Part):
    """What follows. tier: a tier's name, or ``none``: no writer is asked, the sources don't say.

    escalate: why the question goes to a dearer tier than the later rules and the score would
    choose: to the next one, or where `tier` is given, to that one unless theirs is dearer.
    critical: the answer matters so much that its tier must have a second model.
    """

    tier: str | None = None
    escalate: Literal["flagged_complex", "sensitive_domain"] | None = None
    checks: ProfileName | None = None
    critical: bool = False

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if self.escalate is None and self.tier is None:
            raise ValueError("it needs a tier, or a reason to escalate")
        if self.escalate is not None and self.tier == NOBODY:
            raise ValueError("what escalates can't lead to none")
        if self.escalate is not None and self.critical:
            raise ValueError("what is critical has a tier of its own, and does not escalate")
        return self


class Rule(Part):
    """The first rule whose conditions hold decides."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    when: When = When()
    then: Then


class KeywordWeight(Part):
    """A weight that counts once where the question has one of the words."""

    words: Annotated[tuple[Annotated[str, Some], ...], Some]
    weight: float


class TierBar(Part):
    """From this score on, the tier."""

    tier: str
    score: float


class Scored(Part):
    """What decides where no rule holds: a sum of features times weights, against bars.

    weights: by feature: a number's name (``words``, ``confidence``, ``success.TIER``, …) or
    ``intent.explain``, ``language.de`` and the like, which are 1 where they hold. start: the tier
    below every bar. margin: this near below a bar, the question goes to its tier all the same.
    """

    bias: float = 0.0
    weights: Mapping[str, float]
    keywords: tuple[KeywordWeight, ...] = ()
    start: str
    bars: tuple[TierBar, ...]
    margin: Annotated[float, Field(ge=0)] = 0.0


class Learned(Part):
    """A router that was learned from recorded outcomes; docs/concepts/learned-router.md.

    model: its file, seen from the folder of the policy. mode: ``shadow`` tells what it would do,
    ``decide`` lets it decide where no rule holds. cheap, strong: the tiers that its weak and its
    strong writer stand for.
    """

    model: Annotated[str, Some]
    mode: Literal["shadow", "decide"] = "shadow"
    cheap: str
    strong: str


class Budgets(Part):
    """Limits. answer_nano_dollars: what an answer may cost at most, with all its drafts."""

    answer_nano_dollars: NanoDollars | None = None


class Escalation(Part):
    """When the next tier is asked after a draft that can't be shown, and how often.

    requested: whether that holds, too, where the request names a tier or a model.
    """

    max_hops: Annotated[int, Field(ge=0, le=4)] = 0
    reasons: tuple[Literal["validator_failed", "tier_unavailable", "low_confidence"], ...] = (
        "validator_failed",
        "tier_unavailable",
    )
    requested: bool = False


class Policy(Part):
    """The whole file. classes: least strict first. tiers: cheapest first.

    compliance: by class the models that may see data of it, ``*`` for all; a class that is missing
    has none. corpora: the class of what a corpus holds. detect: the class of what is found in a
    text. profiles: of verification, beside those that are there anyway. grounding: None where no
    model judges drafts. last_resort: the extractive model that answers where no draft can be shown.
    gate: what a model has to meet to be active.
    """

    version: Literal[1]
    classes: Annotated[tuple[Name, ...], Field(min_length=1)]
    default_class: str
    detect: Mapping[Sensitive, str] = {}
    corpora: Mapping[str, str] = {}
    models: Annotated[Mapping[Name, Model], Field(min_length=1)]
    tiers: Annotated[Mapping[Name, Tier], Field(min_length=1)]
    compliance: Mapping[str, tuple[str, ...]]
    rules: tuple[Rule, ...] = ()
    scored: Scored | None = None
    learned: Learned | None = None
    checks: ProfileName = "strict"
    profiles: Mapping[Name, Checking] = {}
    grounding: Grounding | None = None
    budgets: Budgets = Budgets()
    escalation: Escalation = Escalation()
    last_resort: str | None = None
    gate: Gate = Gate()

    def strictness(self, data_class: str) -> int:
        """Its place among the classes; past the last for a class that isn't one of them."""
        return self.classes.index(data_class) if data_class in self.classes else len(self.classes)

    def profile(self, name: str) -> Profile:
        """The profile of verification of that name, which a checked policy has."""
        return profile_of(name, self.profiles)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what it says, in hex: comments, order of keys and layout don't count.

        The order of the tiers does: it is the order of their prices.
        """
        content: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        content["tiers"] = list(content["tiers"].items())
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
