"""What the model found, in the form of each API. Pure: no clock, no model."""

from collections.abc import Sequence
from typing import Any

from services.rerank.models.base import Scored, TextTooLongError
from services.rerank.protocol import (
    PairScore,
    Rank,
    Ranking,
    RankingResponse,
    RerankRequest,
    RerankResponse,
    RerankResult,
    ScoreResponse,
    TeiRequest,
    TextObject,
    Truncated,
    Usage,
)
from shared.errors import ApiError


def rerank_response(
    request: RerankRequest, scored: Scored, *, request_id: str, model: str
) -> RerankResponse:
    """The form of Cohere, Jina and vLLM."""
    order = _best_first(scored)
    returned = order[: request.top_n]
    scores = scored.raw_scores if request.raw_scores else scored.scores
    return RerankResponse(
        id=request_id,
        model=model,
        results=[
            RerankResult(
                index=place,
                relevance_score=scores[place],
                document=TextObject(text=request.documents[place])
                if request.return_documents
                else None,
            )
            for place in returned
        ],
        tokens_saved=sum(scored.document_tokens[place] for place in order[len(returned) :])
        if len(returned) < len(order) and scored.document_tokens is not None
        else None,
        meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        **_report([scored]),
    )


def tei_ranks(request: TeiRequest, scored: Scored) -> list[Rank]:
    """The form of text-embeddings-inference."""
    scores = scored.raw_scores if request.raw_scores else scored.scores
    return [
        Rank(
            index=place,
            score=scores[place],
            text=request.texts[place] if request.return_text else None,
        )
        for place in _best_first(scored)
    ]


def score_response(pairs: Sequence[Scored], *, request_id: str, model: str) -> ScoreResponse:
    """vLLM's form, of queries with their documents, in the order of the request."""
    scores = [score for scored in pairs for score in scored.scores]
    return ScoreResponse(
        id=request_id,
        model=model,
        data=[PairScore(index=place, score=score) for place, score in enumerate(scores)],
        **_report(pairs),
    )


def ranking_response(scored: Scored) -> RankingResponse:
    """NIM's form."""
    return RankingResponse(
        rankings=[
            Ranking(index=place, logit=scored.raw_scores[place]) for place in _best_first(scored)
        ],
        **_report([scored]),
    )


def text_too_long(error: TextTooLongError, *, query: str, documents: str) -> ApiError:
    """What a caller is told who forbids truncation; query and documents: the request's names."""
    param = query if error.place is None else f"{documents}.{error.place}"
    return ApiError(
        413,
        "text_too_long",
        f"{param} has {error.tokens} tokens and the model reads {error.limit}; shorten it, or "
        "allow truncation",
        param=param,
    )


def _best_first(scored: Scored) -> list[int]:
    """The documents' places, equal scores in the order of the request.

    By the model's own score: far from 0 log-odds differ where the relevance, rounded, does not.
    """
    return sorted(range(len(scored.raw_scores)), key=lambda place: -scored.raw_scores[place])


def _report(parts: Sequence[Scored]) -> dict[str, Any]:
    """The fields of Report."""
    counts = [scored.tokens for scored in parts if scored.tokens is not None]
    tokens = sum(counts)
    cuts = enumerate(cut for scored in parts for cut in scored.truncated)
    known = len(counts) == len(parts)
    return {
        "usage": Usage(prompt_tokens=tokens, total_tokens=tokens) if known else None,
        "truncated": [Truncated(index=place, tokens_cut=cut) for place, cut in cuts if cut] or None,
        "query_tokens_cut": sum(scored.query_truncated for scored in parts) or None,
    }
