"""What another policy would have decided for a recorded answer. Pure functions.

A record keeps the features that its decision was made from, so that the router can be asked again.
Nothing is retrieved or written: what a writer would have made of it is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from services.generate.policy.schema import Policy
from services.generate.routing.features import RoutingFeatures
from services.generate.routing.kept import restored
from services.generate.routing.refusals import refuse_names, refuse_route
from services.generate.routing.router import route
from shared.errors import ApiError


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Question(_Part):
    text: str | None = None


class _Decision(_Part):
    tier: str | None
    model: str | None
    rule: str


class _Hop(_Part):
    reason: str


class _Kept(_Part):
    """What of a record is read."""

    at: str
    request_id: str
    question: _Question
    features: dict[str, Any]
    decision: _Decision
    hops: list[_Hop] = []


class NotReplayableError(Exception):
    """A record from which nothing can be decided again; its text says why."""


@dataclass(frozen=True)
class Made:
    """A decision in short. tier, model: None where nobody was asked. rule: what decided. refused:
    the code of the error that the caller is told, None where there is none."""

    tier: str | None
    model: str | None
    rule: str | None
    refused: str | None = None


@dataclass(frozen=True)
class Replayed:
    """A recorded decision, and the one that a policy makes now. at, request_id: of the record.

    escalated: the reasons of the steps from a tier to another that followed. untried: conditions
    that could not be looked at, as the record does not keep the question's text.
    """

    record: int
    at: str
    request_id: str
    escalated: tuple[str, ...]
    then: Made
    now: Made
    untried: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether another writer would be asked, or none."""
        return (self.then.tier, self.then.model) != (self.now.tier, self.now.model)


def replay(seq: int, record: Mapping[str, Any] | None, policy: Policy) -> Replayed:
    """Decide a recorded question again. record: None for one that is damaged.

    Raises NotReplayableError.

    The policy's own learned router is not asked: what the recorded one said stands.
    """
    if record is None:
        raise NotReplayableError("the record is damaged: `refdesk audit verify` says where")
    if "features" not in record:
        raise NotReplayableError("the record keeps no features: it failed before it was decided")
    try:
        kept = _Kept.model_validate(record)
        features = restored(kept.features, kept.question.text or "")
    except ValueError:
        raise NotReplayableError("the record is not one that this version can read") from None
    then = kept.decision
    return Replayed(
        seq,
        kept.at,
        kept.request_id,
        tuple(hop.reason for hop in kept.hops),
        Made(then.tier, then.model, then.rule),
        decide(features, policy),
        () if kept.question.text is not None or not _reads_words(policy) else ("keywords",),
    )


def decide(features: RoutingFeatures, policy: Policy) -> Made:
    """The decision, or how the request is refused."""
    try:
        refuse_names(policy, features.requested, features.mark, features.tiers)
        decision = route(features, policy)
        refuse_route(decision, features.requested)
    except ApiError as error:
        return Made(None, None, None, error.code)
    return Made(decision.tier, decision.model, decision.rule)


def _reads_words(policy: Policy) -> bool:
    return any(rule.when.keywords for rule in policy.rules) or bool(
        policy.scored and policy.scored.keywords
    )
