"""A model of the policy: how it is asked, what it costs, and what is known of it."""

import datetime
from collections.abc import Mapping, Set
from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.generate.prompting.chat import Capability
from services.generate.prompting.images import IMAGE_TOKENS, MOST_IMAGE_TOKENS
from services.generate.reading.sensitivity import Sensitive

# What a model server is taken to be able to do whose capabilities nobody states. A text server that
# is sent an image may pass over it without a word, so that vision has to be stated.
_UNSTATED = frozenset({Capability.TOOLS.value, Capability.SCHEMA.value})

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
NanoDollars = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[int, Field(ge=0, le=100)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
MAX_RISK = 100


def _is_an_address(value: str) -> str:
    if not value:  # as if it weren't given
        return value
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, half an IPv6 address
        good = False
    if not good or any(one.isspace() for one in value):
        raise ValueError("must be an address that begins with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        # The file is read by many, and the inventory and the log tell addresses.
        raise ValueError(
            "must hold no user, password or query: a model's key stands in REFDESK_MODEL_KEYS"
        )
    return value


def _as_kinds(value: object) -> object:
    return list(Sensitive) if value is True else () if value is False else value


class Part(BaseModel):
    """A part of the policy: what it doesn't know is refused, and nobody changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class State(StrEnum):
    """Where a model is in its life. A candidate writes only where a request names it."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


class Price(Part):
    """What a token costs, nano-dollars: 150 is 0.15 dollars for a million."""

    input: NanoDollars
    output: NanoDollars


class Benchmark(Part):
    """How well a model did. score: 0 to 1. date: of the measurement. source: where it is told."""

    score: Share
    date: datetime.date
    source: Text


class Risk(Part):
    """One thing that speaks against a model. points: its share of the score, 0 to 100."""

    item: Text
    points: Points
    why: Text


class Model(Part):
    """A writer that the policy knows.

    kind: ``configured`` is what the settings name for the tier (REFDESK_UTILITY_URL and the like,
    or the embedded writer); ``extractive`` quotes; ``openai`` is `model` at `url`, with the key
    that REFDESK_MODEL_KEYS has under this model's name.
    served: of kind configured: that the settings may make it a server, and compliance knows it.
    context: tokens of prompt and draft together, None where the writer cuts what it reads.
    capabilities: None where nothing is stated: then a server is taken to have all but vision.
    Writers in this process have none, whatever is stated.
    thinking_tokens: what it may write on top of a draft, as it thinks before it. thinks_first: its
    texts begin within thoughts, whose opening tag stands in the prompt that its server makes.
    image_tokens: the most that an image comes to, as its server counts.
    latency_ms: what a draft takes; with less time left the model isn't asked.
    instead: the model to name once this one is retired. rollback: the one to go back to where this
    one disappoints. data_residency: where what it is sent stays, countries or regions.
    mask: what it is sent placeholders for, ``true`` for all that is found. datamark: whether the
    passages it is sent have a mark in the place of their white space.
    risk: None where nobody has looked, empty where nothing was found.
    """

    tier: Name
    kind: Literal["configured", "extractive", "openai"]
    url: Annotated[str, AfterValidator(_is_an_address)] = ""
    model: str = ""
    version: str = ""
    served: bool = False
    price: Price | None = None
    context: Annotated[int, Field(ge=256, le=10**9)] | None = None
    capabilities: tuple[Capability, ...] | None = None
    thinking_tokens: Annotated[int, Field(ge=0, le=200_000)] = 0
    thinks_first: bool = False
    image_tokens: Annotated[int, Field(ge=1, le=MOST_IMAGE_TOKENS)] = IMAGE_TOKENS
    latency_ms: Annotated[int, Field(ge=0, le=10**9)] = 0
    state: State = State.ACTIVE
    instead: str = ""
    rollback: str = ""
    mask: Annotated[tuple[Sensitive, ...], BeforeValidator(_as_kinds)] = ()
    datamark: bool = False
    benchmarks: Mapping[Name, Benchmark] = {}
    certifications: tuple[Text, ...] = ()
    data_residency: tuple[Text, ...] = ()
    risk: tuple[Risk, ...] | None = None
    owner: Annotated[str, Field(max_length=1000)] = ""
    notes: Annotated[str, Field(max_length=10_000)] = ""

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if (self.kind == "openai") != bool(self.url and self.model):
            raise ValueError("kind openai, and no other, has url and model")
        if self.kind == "configured" and self.tier not in ("utility", "reasoning"):
            raise ValueError("kind configured is for the tiers utility and reasoning: the settings")
        if self.kind == "extractive" and (self.mask or self.datamark):
            raise ValueError("mask and datamark are for a prompt, and kind extractive has none")
        if self.kind == "extractive" and (self.thinking_tokens or self.thinks_first):
            raise ValueError(
                "kind extractive does not think: leave out thinking_tokens and thinks_first"
            )
        if self.mask and Capability.VISION in (self.capabilities or ()):
            raise ValueError("what is in an image can't be masked: leave out mask, or vision")
        return self

    @model_validator(mode="after")
    def _has_a_risk_points(self) -> Self:
        items = [one.item for one in self.risk or ()]
        if len(set(items)) < len(items):
            raise ValueError("an item of risk stands twice")
        if (self.risk_points or 0) > MAX_RISK:
            raise ValueError(f"the points of risk sum up to {self.risk_points}, over {MAX_RISK}")
        return self

    @property
    def risk_points(self) -> int | None:
        """The sum of the points of its risk, 0 to 100; None where nobody has looked."""
        return None if self.risk is None else sum(one.points for one in self.risk)

    def lacks(self, needs: Set[str]) -> frozenset[str]:
        """What of `needs`, names of capabilities, a server of this model can't do."""
        able = _UNSTATED if self.capabilities is None else frozenset(map(str, self.capabilities))
        return frozenset(needs - able)

    def reads(self, text_tokens: int, images: int) -> int:
        """Tokens of a prompt with so many of text and so many images, as it may count them."""
        return text_tokens + images * self.image_tokens

    @property
    def path(self) -> tuple[str, ...]:
        """What has to work for this model to write; two models of one path fail together."""
        if self.kind == "openai":
            return (self.url, self.model)
        return (self.kind, self.tier) if self.kind == "configured" else (self.kind,)


class Bars(Part):
    """What a model has to meet. benchmarks: the least score by name. max_risk: 0 to 100."""

    benchmarks: Mapping[Name, Share] = {}
    max_risk: Points | None = None


class Gate(Bars):
    """What a model has to meet to be active: these bars, those of its tier, and those of each
    class of data that it may see."""

    tiers: Mapping[str, Bars] = {}
    classes: Mapping[str, Bars] = {}
