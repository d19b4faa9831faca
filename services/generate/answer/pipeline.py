"""The way of a question through this service, in two steps.

`prepare` finds the passages and decides who writes; what fails there is an ordinary HTTP error.
`finish` drafts and verifies, which may take long; a stream has begun by then.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.generate.answer.escalate import Outcome, respond
from services.generate.answer.evidence import Evidence, confidence, gather, with_similarities
from services.generate.answer.passages import Passage, Signals
from services.generate.answer.sources import Desk, Librarian
from services.generate.routing.features import features
from services.generate.routing.policy import Policy, Tier
from services.generate.routing.router import Route, RoutingFeatures, route
from services.generate.tiers.registry import Registry
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

_DRAFT_TOKENS = 160  # three sentences with their markers
_MOST_DRAFT_TOKENS = 1024
_MOST_CORPORA = 16  # the desk searches no more at once


@dataclass(frozen=True)
class Query:
    """A question and where to look; see protocol.Options. corpora: empty for the default ones."""

    question: str
    corpora: Sequence[str]
    top_k: int
    passage_tokens: int
    curate: bool | None
    requested: Tier | None
    draft_tokens: int | None


@dataclass(frozen=True)
class Prepared:
    """All that is known before anybody writes. Times in milliseconds."""

    query: Query
    passages: tuple[Passage, ...]
    evidence: tuple[Evidence, ...]
    signals: Signals
    route: Route
    degraded: tuple[str, ...]
    retrieve_ms: float
    route_ms: float


@dataclass(frozen=True)
class Engine:
    """What the pipeline works with; one per process."""

    desk: Desk
    librarian: Librarian
    registry: Registry
    policy: Policy
    default_corpora: Sequence[str]

    async def prepare(self, query: Query) -> Prepared:
        """Passages, evidence and route of a question.

        Raises ApiError: 404 where there is no corpus to search, the desk's own otherwise.
        """
        started = time.perf_counter()
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
        chosen = route(
            RoutingFeatures(
                features(query.question), found.signals, confidence(evidence), query.requested
            ),
            self.policy,
        )
        return Prepared(
            query,
            found.passages,
            tuple(evidence),
            found.signals,
            chosen,
            tuple(degraded),
            (retrieved - started) * 1000,
            (time.perf_counter() - retrieved) * 1000,
        )

    async def finish(self, prepared: Prepared) -> Outcome:
        """The verified answer. Raises a 504 ApiError when the deadline passes."""
        query = prepared.query
        return await respond(
            query.question,
            prepared.passages,
            prepared.evidence,
            prepared.route,
            self.registry,
            max_tokens=min(query.draft_tokens or _DRAFT_TOKENS, _MOST_DRAFT_TOKENS),
        )

    async def close(self) -> None:
        """Close the clients and the writers."""
        await self.desk.close()
        await self.librarian.close()
        await self.registry.close()

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
