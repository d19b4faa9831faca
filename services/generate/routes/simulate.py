"""What a policy would do, before it does it: the matrix, the rules, and whom questions go to."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from services.generate.answer.writers import Writers
from services.generate.policy.schema import AUTO, Policy
from services.generate.protocol import MadeBody
from services.generate.protocol.images import MOST_IMAGES
from services.generate.reading.passages import Signals
from services.generate.reading.sensitivity import kinds
from services.generate.routes.access import require_admin
from services.generate.routes.policies import PolicyText, policy_of
from services.generate.routing.features import RoutingFeatures, features_of
from services.generate.routing.in_force import PolicyFile
from services.generate.routing.simulate import matrix, rule_rows
from services.generate.trust.replay import decide

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class SampleSignals(BaseModel):
    """What the search would say of its passages; see the desk's docs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top_score: Share = 1.0
    margin: Share = 1.0
    agreement: Share = 1.0
    coverage: Share = 1.0
    documents: Annotated[int, Field(ge=0, le=1000)] = 1


class SampleBody(BaseModel):
    """A question, and what is assumed of all that it was not asked for.

    model, data_class, flagged, tiers, budget_nano_dollars: as in a chat request. confidence: of the
    evidence. needs: beyond text. prompt_tokens: of question and passages, without the images.
    success: by tier.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    question: Annotated[str, Field(min_length=1, max_length=8192)]
    model: Annotated[str, Field(max_length=200)] = AUTO
    data_class: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    flagged: bool = False
    tiers: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    budget_nano_dollars: Annotated[int, Field(ge=0, le=10**15)] | None = None
    corpora: Annotated[list[str], Field(max_length=16)] = []
    confidence: Share = 1.0
    signals: SampleSignals = SampleSignals()
    turns: Annotated[int, Field(ge=1, le=1000)] = 1
    needs: Annotated[list[str], Field(max_length=8)] = []
    prompt_tokens: Count = 0
    draft_tokens: Count = 0
    images: Annotated[int, Field(ge=0, le=MOST_IMAGES)] = 0
    success: Annotated[dict[str, Share], Field(max_length=64)] = {}


class SimulateRequest(BaseModel):
    """policy: YAML, as in a policy file; null for the policy that holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    policy: PolicyText | None = None
    samples: Annotated[list[SampleBody], Field(max_length=200)] = []


class CellBody(BaseModel):
    """Whether a model may write for data of a class; rule and why where it may not."""

    data_class: str
    model: str
    allowed: bool
    rule: str
    why: str


class RuleRowBody(BaseModel):
    """Whom a rule asks for data of a class; null where nobody."""

    rule: str
    data_class: str
    tier: str | None
    models: list[str]


class SimulatedBody(BaseModel):
    """Whom a question goes to now, and whom by the policy of the request."""

    question: str
    now: MadeBody
    then: MadeBody
    changed: bool


class Simulation(BaseModel):
    """policy, now: fingerprints of the policy that was sent and of the one that holds.

    matrix, rules: of the one that was sent. changed: how many samples would go to another writer.
    """

    policy: str
    now: str
    matrix: list[CellBody]
    rules: list[RuleRowBody]
    samples: list[SimulatedBody]
    changed: int


def add_routes(app: FastAPI, policies: PolicyFile, writers: Writers) -> None:
    """Add the route."""

    @app.post("/v1/simulate")
    async def simulate(body: SimulateRequest) -> Simulation:
        """What a policy allows, and whom questions would go to; nothing is retrieved or written."""
        require_admin("what a policy would do")
        held = await policies.current()
        policy = await policy_of(body.policy, policies)
        return await asyncio.to_thread(_simulated, body.samples, held, policy, writers)


def _simulated(
    samples: Sequence[SampleBody], held: Policy, policy: Policy, writers: Writers
) -> Simulation:
    done = [_sample(sample, held, policy, writers) for sample in samples]
    return Simulation(
        policy=policy.fingerprint,
        now=held.fingerprint,
        matrix=[CellBody(**asdict(cell)) for cell in matrix(policy)],
        rules=[RuleRowBody(**asdict(row)) for row in rule_rows(policy)],
        samples=done,
        changed=sum(one.changed for one in done),
    )


def _sample(sample: SampleBody, held: Policy, policy: Policy, writers: Writers) -> SimulatedBody:
    now = decide(_features(sample, held, writers), held)
    then = decide(_features(sample, policy, writers), policy)
    return SimulatedBody(
        question=sample.question,
        now=MadeBody(**asdict(now)),
        then=MadeBody(**asdict(then)),
        changed=(now.tier, now.model) != (then.tier, then.model),
    )


def _features(sample: SampleBody, policy: Policy, writers: Writers) -> RoutingFeatures:
    signals = Signals(**sample.signals.model_dump())
    return replace(
        features_of(sample.question, signals, sample.confidence),
        turns=sample.turns,
        needs=frozenset(sample.needs),
        flagged=sample.flagged,
        mark=sample.data_class,
        corpora=frozenset(sample.corpora),
        found=kinds([sample.question]),
        requested=None if sample.model == AUTO else sample.model,
        tiers=None if sample.tiers is None else frozenset(sample.tiers),
        budget=sample.budget_nano_dollars,
        prompt_tokens=sample.prompt_tokens,
        draft_tokens=sample.draft_tokens,
        images=sample.images,
        served=writers.served(policy),
        embedded=writers.embedded(policy),
        success=sample.success,
    )
