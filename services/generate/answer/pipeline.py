"""The way of a question through this service, in two steps.

`prepare` finds the passages and decides who writes; what fails there is an ordinary HTTP error.
`finish` drafts and verifies, which may take long; a stream has begun by then.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.generate.answer.escalate import respond
from services.generate.answer.evidence import Evidence, confidence, gather, with_similarities
from services.generate.answer.outcome import Outcome, Spending
from services.generate.answer.passages import Passage, Signals
from services.generate.answer.sources import Desk, Librarian, Retrieval
from services.generate.policy.file import PolicyFile
from services.generate.policy.schema import Policy
from services.generate.policy.writers import Writers
from services.generate.routing.features import features
from services.generate.routing.language import language
from services.generate.routing.refusals import refuse_names, refuse_route
from services.generate.routing.request import RoutingFeatures, estimated_tokens
from services.generate.routing.router import Decision, route
from services.generate.routing.sensitivity import kinds
from services.generate.tiers.endpoint import PLAIN, Chat
from shared.context import current
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

_DRAFT_TOKENS = 160  # three sentences with their markers
_MOST_DRAFT_TOKENS = 1024
_MOST_CORPORA = 16  # the desk searches no more at once
_SCAFFOLD_TOKENS = 256  # of the prompt around question and passages


@dataclass(frozen=True)
class Query:
    """A question, where to look and who may write; see protocol.Options.

    corpora: empty for the default ones. requested: a tier or model, None for the router's choice.
    turns, needs, mark, tiers, budget: see routing/request.py. chat: what it was asked in.
    """

    question: str
    corpora: Sequence[str]
    top_k: int
    passage_tokens: int
    curate: bool | None
    requested: str | None
    draft_tokens: int | None
    turns: int = 1
    needs: frozenset[str] = frozenset()
    mark: str | None = None
    tiers: frozenset[str] | None = None
    budget: int | None = None
    chat: Chat = PLAIN


@dataclass(frozen=True)
class Prepared:
    """All that is known before anybody writes. policy: what was decided by. Times in ms."""

    query: Query
    passages: tuple[Passage, ...]
    evidence: tuple[Evidence, ...]
    signals: Signals
    confidence: float
    decision: Decision
    policy: Policy
    degraded: tuple[str, ...]
    retrieve_ms: float
    route_ms: float


@dataclass(frozen=True)
class Engine:
    """What the pipeline works with; one per process."""

    desk: Desk
    librarian: Librarian
    writers: Writers
    policies: PolicyFile
    default_corpora: Sequence[str]

    async def prepare(self, query: Query) -> Prepared:
        """Passages, evidence and decision of a question.

        Raises ApiError: 404 where there is no corpus to search or no such model, 403 where the
        policy forbids the one that was asked for, the desk's own otherwise.
        """
        started = time.perf_counter()
        policy = await self.policies.current()
        refuse_names(policy, query.requested, query.mark, query.tiers)
        found = await self.desk.retrieve(
            query.question,
            await self._corpora(query),
            top_k=query.top_k,
            max_tokens=query.passage_tokens,
            curate=query.curate,
        )
        retrieved = time.perf_counter()
        degraded = list(found.degraded)
        evidence = gather(query.question, found.passages)
        try:
            evidence = with_similarities(
                evidence,
                await self.librarian.similarities(
                    query.question, [one.sentence.text for one in evidence]
                ),
            )
        except ApiError as error:
            log.warning("similarity_left_out", code=error.code)
            degraded.append("similarity")
        sure = confidence(evidence)
        decision = route(self._features(query, found, sure, policy), policy)
        refuse_route(decision, query.requested)
        return Prepared(
            query,
            found.passages,
            tuple(evidence),
            found.signals,
            sure,
            decision,
            policy,
            tuple(degraded),
            (retrieved - started) * 1000,
            (time.perf_counter() - retrieved) * 1000,
        )

    async def finish(
        self,
        prepared: Prepared,
        spending: Spending,
        show: Callable[[str], None] | None = None,
    ) -> Outcome:
        """The answer, and whether it is verified. spending, show, what it raises: see `respond`."""
        query, policy = prepared.query, prepared.policy
        return await respond(
            query.question,
            prepared.passages,
            prepared.evidence,
            prepared.decision,
            policy,
            {name: self.writers.endpoint(name, model) for name, model in policy.models.items()},
            max_tokens=_draft_tokens(query),
            spending=spending,
            chat=query.chat,
            show=show,
        )

    async def close(self) -> None:
        """Close the clients and the writers."""
        await self.desk.close()
        await self.librarian.close()
        await self.writers.close()

    def _features(
        self, query: Query, found: Retrieval, sure: float, policy: Policy
    ) -> RoutingFeatures:
        texts = [query.question, *(f"{one.title or ''}\n{one.text}" for one in found.passages)]
        return RoutingFeatures(
            text=query.question,
            question=features(query.question),
            signals=found.signals,
            confidence=sure,
            tokens=estimated_tokens([query.question]),
            language=language(query.question),
            turns=query.turns,
            needs=query.needs,
            mark=query.mark,
            corpora=frozenset(one.corpus for one in found.passages),
            found=kinds(texts),
            requested=query.requested,
            tiers=query.tiers,
            budget=query.budget,
            prompt_tokens=estimated_tokens(texts) + _SCAFFOLD_TOKENS,
            draft_tokens=_draft_tokens(query),
            remaining_ms=current().deadline.remaining_ms(),
            served=self.writers.served(policy),
        )

    async def _corpora(self, query: Query) -> Sequence[str]:
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


def _draft_tokens(query: Query) -> int:
    return min(query.draft_tokens or _DRAFT_TOKENS, _MOST_DRAFT_TOKENS)
