"""The policy file as frozen values. What each part means is told in docs/concepts/policy.md.

These models say what a file may hold, part by part; whether the parts fit together is the lint's.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.generate.answer.evidence import MIN_CONFIDENCE, MIN_RELEVANCE
from services.generate.routing.features import AnswerKind, Intent
from services.generate.routing.sensitivity import Sensitive

AUTO = "auto"
NOBODY = "none"  # what a rule says whose questions no writer is asked
# Bars of the evidence's confidence that are calibrated in code, under the names a file gives them.
_BARS = {"answers": MIN_CONFIDENCE, "relevant": MIN_RELEVANCE}

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
NanoDollars = Annotated[int, Field(ge=0, le=10**12)]


def _as_profile(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare `off` as false


def _as_bar(value: object) -> object:
    if isinstance(value, str):
        if value not in _BARS:
            raise ValueError(f"must be a number, or one of {', '.join(_BARS)}")
        return _BARS[value]
    return value


def _is_an_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, half an IPv6 address
        good = False
    if not good or any(one.isspace() for one in value):
        raise ValueError("must be an address that begins with http:// or https://")
    return value


Profile = Annotated[Literal["off", "light", "strict"], BeforeValidator(_as_profile)]
Bar = Annotated[float, BeforeValidator(_as_bar)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Capability(StrEnum):
    """What a request may need of a model beyond text."""

    TOOLS = "tools"
    SCHEMA = "schema"


class State(StrEnum):
    """Where a model is in its life. A candidate writes only where a request names it."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


class Reason(StrEnum):
    """All that an answer may be escalated for."""

    VALIDATOR_FAILED = "validator_failed"
    TIER_UNAVAILABLE = "tier_unavailable"
    LOW_CONFIDENCE = "low_confidence"


class Price(_Part):
    """What a token costs, nano-dollars: 150 is 0.15 dollars for a million."""

    input: NanoDollars
    output: NanoDollars


class Model(_Part):
    """A writer that the policy knows.

    kind: ``configured`` is what the settings name for the tier (REFDESK_UTILITY_URL and the like,
    or the embedded writer); ``extractive`` quotes; ``openai`` is `model` at `url`, with the key
    that REFDESK_MODEL_KEYS has under this model's name.
    context: tokens of prompt and draft together, None where the writer cuts what it reads.
    capabilities: None where nothing is stated: then nothing rules it out.
    latency_ms: what a draft takes; with less time left the model isn't asked.
    instead: the model to name once this one is retired.
    """

    tier: Name
    kind: Literal["configured", "extractive", "openai"]
    url: Annotated[str, AfterValidator(_is_an_address)] = ""
    model: str = ""
    version: str = ""
    price: Price | None = None
    context: Annotated[int, Field(ge=256, le=10**9)] | None = None
    capabilities: tuple[Capability, ...] | None = None
    latency_ms: Annotated[int, Field(ge=0, le=10**9)] = 0
    state: State = State.ACTIVE
    instead: str = ""

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if (self.kind == "openai") != bool(self.url and self.model):
            raise ValueError("kind openai, and no other, has url and model")
        if self.kind == "configured" and self.tier not in ("utility", "reasoning"):
            raise ValueError("kind configured is for the tiers utility and reasoning: the settings")
        return self

    @property
    def path(self) -> tuple[str, ...]:
        """What has to work for this model to write; two models of one path fail together."""
        if self.kind == "openai":
            return (self.url, self.model)
        return (self.kind, self.tier) if self.kind == "configured" else (self.kind,)


class Tier(_Part):
    """A class of writers. models: the first is asked, the others are its fallbacks, in order."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    checks: Profile | None = None


class Range(_Part):
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


Some = Field(min_length=1)


class When(_Part):
    """The conditions of a rule; all that are given must hold. None given: it always holds."""

    intent: Annotated[tuple[Intent, ...], Some] | None = None
    asks_for: Annotated[tuple[AnswerKind, ...], Some] | None = None
    language: Annotated[tuple[str, ...], Some] | None = None
    data_class: Annotated[tuple[str, ...], Some] | None = None
    keywords: Annotated[tuple[Annotated[str, Some], ...], Some] | None = None
    tools: bool | None = None
    schema_: Annotated[bool | None, Field(alias="schema")] = None
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


class Then(_Part):
    """What follows. tier: a tier's name, or ``none``: no writer is asked, the sources don't say.

    critical: the answer matters so much that its tier must have a second model.
    """

    tier: str
    checks: Profile | None = None
    critical: bool = False


class Rule(_Part):
    """The first rule whose conditions hold decides."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    when: When = When()
    then: Then


class KeywordWeight(_Part):
    """A weight that counts once where the question has one of the words."""

    words: Annotated[tuple[Annotated[str, Some], ...], Some]
    weight: float


class TierBar(_Part):
    """From this score on, the tier."""

    tier: str
    score: float


class Scored(_Part):
    """What decides where no rule holds: a sum of features times weights, against bars.

    weights: by feature: a number's name (``words``, ``confidence``, …) or ``intent.explain``,
    ``language.de`` and the like, which are 1 where they hold. start: the tier below every bar.
    """

    bias: float = 0.0
    weights: Mapping[str, float]
    keywords: tuple[KeywordWeight, ...] = ()
    start: str
    bars: tuple[TierBar, ...]


class Budgets(_Part):
    """Limits. answer_nano_dollars: what one draft may cost at most, by its longest length."""

    answer_nano_dollars: NanoDollars | None = None


class Escalation(_Part):
    """When the next tier is asked after a draft that can't be shown, and how often."""

    max_hops: Annotated[int, Field(ge=0, le=4)] = 0
    reasons: tuple[Reason, ...] = (Reason.VALIDATOR_FAILED, Reason.TIER_UNAVAILABLE)


class Policy(_Part):
    """The whole file. classes: least strict first. tiers: cheapest first.

    compliance: by class the models that may see data of it, ``*`` for all; a class that is missing
    has none. corpora: the class of what a corpus holds. detect: the class of what is found in a
    text. last_resort: the extractive model that answers where no draft can be shown.
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
    checks: Profile = "strict"
    budgets: Budgets = Budgets()
    escalation: Escalation = Escalation()
    last_resort: str | None = None

    def strictness(self, data_class: str) -> int:
        """Its place among the classes; past the last for a class that isn't one of them."""
        return self.classes.index(data_class) if data_class in self.classes else len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what it says, in hex: comments, order of keys and layout don't count.

        The order of the tiers does: it is the order of their prices.
        """
        content: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        content["tiers"] = list(content["tiers"].items())
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
