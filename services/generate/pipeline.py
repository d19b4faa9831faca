"""The way of a question through this service, in two steps.

`prepare` finds the passages and decides who writes; what fails there is an ordinary HTTP error.
`finish` drafts and verifies, which may take long; a stream has begun by then.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from services.generate.answer.escalate import respond
from services.generate.answer.opinion import opinion
from services.generate.answer.outcome import Outcome, Spending
from services.generate.answer.reading_aside import read_aside
from services.generate.answer.unseen import unseen
from services.generate.answer.writers import Writers
from services.generate.cache.cache import AnswerCache, Vector
from services.generate.cache.key import Key, key
from services.generate.peers.desk import Desk, Retrieval
from services.generate.peers.librarian import Librarian
from services.generate.policy.schema import Policy
from services.generate.prompting import conversation
from services.generate.prompting.chat import PLAIN, Capability, Chat
from services.generate.prompting.defang import seen
from services.generate.prompting.prompt import SCAFFOLD_TOKENS
from services.generate.reading.evidence import Evidence, confidence, gather, with_similarities
from services.generate.reading.passages import Passage, Signals
from services.generate.reading.sensitivity import kinds
from services.generate.reading.tokens import estimated_tokens
from services.generate.routing.decision import Decision, Reason, Told
from services.generate.routing.eligible import allowance
from services.generate.routing.features import RoutingFeatures, features_of
from services.generate.routing.history import History, kind_of
from services.generate.routing.in_force import PolicyFile
from services.generate.routing.learned.model import Opinion, RouterModel
from services.generate.routing.refusals import refuse_names, refuse_route
from services.generate.routing.router import route
from services.generate.verification.grounding import GroundingModel
from services.generate.verification.jury import Jury
from shared.context import current
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

_DRAFT_TOKENS = 160  # three sentences with their markers
_MOST_DRAFT_TOKENS = 1024
_MOST_CORPORA = 16  # the desk searches no more at once


@dataclass(frozen=True)
class Query:
    """A question, where to look and who may write; see protocol.Options.

    corpora: empty for the default ones. requested: a tier or model, None for the router's choice.
    turns, flagged, mark, tiers, budget: see routing/features.py. chat: what it was asked in.
    cache: whether an answer that was given before may be given again, and this one be kept for it.
    """

    question: str
    corpora: Sequence[str]
    top_k: int
    passage_tokens: int
    curate: bool | None
    requested: str | None
    draft_tokens: int | None
    turns: int = 1
    flagged: bool = False
    mark: str | None = None
    tiers: frozenset[str] | None = None
    budget: int | None = None
    chat: Chat = PLAIN
    cache: bool = True


@dataclass(frozen=True)
class Prepared:
    """All that is known before anybody writes. features, policy: what was decided by. Times in ms.

    key: what the answer may be kept under; None where it may not. vector: the question's embedding.
    """

    query: Query
    passages: tuple[Passage, ...]
    evidence: tuple[Evidence, ...]
    signals: Signals
    confidence: float
    features: RoutingFeatures
    decision: Decision
    policy: Policy
    degraded: tuple[str, ...]
    retrieve_ms: float
    route_ms: float
    key: Key | None = None
    vector: Vector | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Engine:
    """What the pipeline works with; one per process. answers: None where none are kept.
    grounding: None where no model judges drafts."""

    desk: Desk
    librarian: Librarian
    writers: Writers
    policies: PolicyFile
    default_corpora: Sequence[str]
    answers: AnswerCache | None = None
    grounding: GroundingModel | None = None
    history: History = field(default_factory=History)

    async def prepare(self, query: Query) -> Prepared:
        """Passages, evidence and decision of a question.

        Raises ApiError: 404 where there is no such corpus or model, or none to search, 403 where
        the policy forbids the one that was asked for, the desk's own otherwise.
        """
        started = time.perf_counter()
        held = await self.policies.held()
        policy = held.policy
        refuse_names(policy, query.requested, query.mark, query.tiers)
        chat, left_out = conversation.fitted(query.chat)
        query = replace(query, chat=chat)
        found = await self.desk.retrieve(
            query.question,
            await self._corpora(query),
            top_k=query.top_k,
            max_tokens=query.passage_tokens,
            curate=query.curate,
        )
        retrieved = time.perf_counter()
        evidence, vector, without = await self._evidence(query.question, found.passages)
        sure = confidence(evidence)
        answered = conversation.results(chat, first=len(found.passages) + 1)
        found = replace(found, passages=(*found.passages, *answered))
        features = await self._features(query, found, sure, policy)
        if held.router is not None and query.requested is None and found.signals.documents:
            said, unsaid = await self._opinion(held.router, query.question)
            features = replace(features, opinion=said)
            without += unsaid
        decision = route(features, policy)
        refuse_route(decision, query.requested)
        if left_out:
            cut = Reason(Told.HISTORY_CUT, 0.0, f"{left_out} messages before the question left out")
            decision = replace(decision, reasons=(*decision.reasons, cut))
        return Prepared(
            query=query,
            passages=found.passages,
            evidence=tuple(evidence),
            signals=found.signals,
            confidence=sure,
            features=features,
            decision=decision,
            policy=policy,
            degraded=(*found.degraded, *without),
            retrieve_ms=(retrieved - started) * 1000,
            route_ms=(time.perf_counter() - retrieved) * 1000,
            key=self._key(query, found, decision),
            # Whether two questions about an image ask the same can't be told by their words.
            vector=None if query.chat.all_images else vector,
        )

    async def finish(
        self,
        prepared: Prepared,
        spending: Spending,
        show: Callable[[str], None] | None = None,
    ) -> Outcome:
        """The answer, and whether it is verified: one that was given before, or a new one.

        spending, show, what it raises: see `respond`.
        """
        if self.answers is not None and prepared.key is not None:
            known = self.answers.find(prepared.key, prepared.vector, prepared.decision)
            if known is not None:
                return known
        query, policy = prepared.query, prepared.policy
        writers = {name: self.writers.endpoint(name, one) for name, one in policy.models.items()}
        outcome = await respond(
            query.question,
            prepared.passages,
            prepared.evidence,
            prepared.decision,
            policy,
            writers,
            max_tokens=_draft_tokens(query),
            spending=spending,
            jury=Jury(self.librarian, self.grounding),
            allowance=allowance(prepared.features, policy),
            chat=query.chat,
            show=show,
        )
        self.history.note(kind_of(prepared.features.question), outcome.verified)
        blind = not {outcome.endpoint} & {writers[name].name for name in _seeing(prepared)}
        return unseen(outcome) if query.chat.all_images and blind else outcome

    def keep(self, prepared: Prepared, outcome: Outcome, record: str | None) -> None:
        """Keep an answer that is about to be given. record: its place in the audit trail."""
        if self.answers is not None and prepared.key is not None and not prepared.degraded:
            self.answers.keep(prepared.key, prepared.vector, prepared.decision, outcome, record)

    async def close(self) -> None:
        """Close the clients and the writers, each also where another can't be."""
        async with AsyncExitStack() as closing:
            for one in (self.grounding, self.writers, self.librarian, self.desk):
                if one is not None:
                    closing.push_async_callback(one.close)

    def _key(self, query: Query, found: Retrieval, decision: Decision) -> Key | None:
        if self.answers is None or not query.cache:
            return None
        asked = replace(query, question="")
        return key(query.question, asked, found.passages, decision, current().principal)

    async def _evidence(
        self, question: str, passages: Sequence[Passage]
    ) -> tuple[list[Evidence], Vector | None, tuple[str, ...]]:
        """The evidence for a question, its vector, and what had to be done without for them."""
        evidence = await read_aside(
            lambda: gather(question, passages),
            len(question) + sum(len(one.text) for one in passages),
        )
        try:
            alike = await self.librarian.likeness(question, [one.sentence.text for one in evidence])
        except ApiError as error:
            log.warning("similarity_left_out", code=error.code)
            return evidence, None, ("similarity",)
        return with_similarities(evidence, alike.cosines), alike.question, ()

    async def _opinion(
        self, router: RouterModel, question: str
    ) -> tuple[Opinion | None, tuple[str, ...]]:
        """What the learned router makes of a question, and what had to be done without for it."""
        try:
            return await opinion(router, self.librarian, question), ()
        except ApiError as error:
            log.warning("learned_router_left_out", code=error.code, why=error.message)
            return None, ("learned_router",)

    async def _features(
        self, query: Query, found: Retrieval, sure: float, policy: Policy
    ) -> RoutingFeatures:
        texts = [
            query.question,
            *(f"{one.title or ''}\n{one.text}" for one in found.passages),
            *conversation.texts(query.chat),
        ]
        searched = [*texts, *conversation.strings(query.chat)]
        by_itself = features_of(query.question, found.signals, sure)
        return replace(
            by_itself,
            turns=query.turns,
            needs=conversation.needs(query.chat),
            flagged=query.flagged,
            mark=query.mark,
            corpora=frozenset(one.corpus for one in found.passages),
            found=await read_aside(lambda: kinds(seen(searched)), sum(map(len, searched))),
            requested=query.requested,
            tiers=query.tiers,
            key_tiers=current().principal.tiers,
            budget=query.budget,
            prompt_tokens=estimated_tokens(texts) + SCAFFOLD_TOKENS,
            draft_tokens=_draft_tokens(query),
            images=len(query.chat.all_images),
            remaining_ms=current().deadline.remaining_ms(),
            served=self.writers.served(policy),
            success=self.history.success(kind_of(by_itself.question)),
            embedded=self.writers.embedded(policy),
        )

    async def _corpora(self, query: Query) -> Sequence[str]:
        for corpus in query.corpora:
            current().principal.require_read(corpus)
        if query.corpora or self.default_corpora:
            return query.corpora or self.default_corpora
        corpora = await self.desk.corpora()
        if not corpora:
            raise ApiError(
                404,
                "no_corpora",
                "there is no corpus to answer from: load documents first, "
                "`refdesk ingest PATH --corpus NAME`",
            )
        if len(corpora) > _MOST_CORPORA:
            raise ApiError(
                400,
                "too_many_corpora",
                f"there are {len(corpora)} corpora, {_MOST_CORPORA} can be searched at once: name "
                "them in refdesk.corpora, or set REFDESK_DEFAULT_CORPORA",
                param="refdesk.corpora",
            )
        return corpora


def _seeing(prepared: Prepared) -> set[str]:
    """The models that are sent images."""
    embedded, models = prepared.features.embedded, prepared.policy.models
    vision = {Capability.VISION}
    return {name for name, one in models.items() if not one.lacks(vision)} - embedded


def _draft_tokens(query: Query) -> int:
    # JSON and arguments that are cut are worth nothing; how long they get is not ours to guess.
    formed = conversation.needs(query.chat) - {Capability.VISION}
    usual = _MOST_DRAFT_TOKENS if formed else _DRAFT_TOKENS
    return min(query.draft_tokens or usual, _MOST_DRAFT_TOKENS)
