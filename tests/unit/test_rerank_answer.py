"""What the model found, in the form of an answer."""

from services.rerank import answer
from services.rerank.models.base import Scored
from services.rerank.protocol import RerankRequest


def test_far_from_0_the_models_own_score_tells_the_better_one() -> None:
    """A relevance is rounded to 1.0 there; what it was made of still differs."""
    scored = Scored(
        scores=[1.0, 1.0, 0.2],
        raw_scores=[40.0, 60.0, -1.4],
        tokens=9,
        document_tokens=[2, 2, 2],
        truncated=[0, 0, 0],
        query_truncated=0,
    )
    request = RerankRequest.model_validate({"query": "q", "documents": ["a", "b", "c"], "top_n": 1})
    told = answer.rerank_response(request, scored, request_id="r", model="m")
    assert [(one.index, one.relevance_score) for one in told.results] == [(1, 1.0)]
    assert [one.index for one in answer.ranking_response(scored).rankings] == [1, 0, 2]
