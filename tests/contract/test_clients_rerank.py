"""The rerankers of well-known packages, unchanged, against the running rerank.

Packages that report their use are imported once they can't: within the tests.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.guarded import KEY, service_with_a_key
from tests.suite import Suite

QUERY = "How do I reset my password?"
DOCUMENTS = [
    "The cafeteria opens at noon.",
    "Reset your password on the account page.",
    "A tax return is due in May.",
]
MODEL = "all-MiniLM-L6-v2"

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def url(suite: Suite) -> str:
    return suite.url("rerank")


@pytest.fixture(scope="module")
def guarded(models_dir: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service_with_a_key("rerank", tmp_path_factory.mktemp("guarded")) as base:
        yield base


def cohere_client(base_url: str, key: str) -> Any:
    import cohere

    return cohere.ClientV2(api_key=key, base_url=base_url)


def test_cohere_reads_places_scores_and_what_was_billed(url: str) -> None:
    client = cohere_client(url, "any")
    answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2)
    assert answer.results[0].index == 1
    assert len(answer.results) == 2
    assert 1 >= answer.results[0].relevance_score > answer.results[1].relevance_score >= 0
    assert isinstance(answer.id, str)
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units.search_units == 1
    long = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=4)
    assert len(long.results) == len(DOCUMENTS)


async def test_cohere_asks_asynchronously_too(url: str) -> None:
    import cohere

    client = cohere.AsyncClientV2(api_key="any", base_url=url)
    answer = await client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    assert answer.results[0].index == 1
    assert sorted(one.index for one in answer.results) == [0, 1, 2]


def test_cohere_sends_its_key_and_raises_its_own_errors(url: str, guarded: str) -> None:
    from cohere import errors

    with pytest.raises(errors.UnauthorizedError, match="valid API key"):
        cohere_client(guarded, "wrong").rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    answer = cohere_client(guarded, KEY).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    assert answer.results[0].index == 1
    with pytest.raises(errors.NotFoundError, match=MODEL):  # names what there is
        cohere_client(url, "any").rerank(model="rerank-v4", query=QUERY, documents=DOCUMENTS)
    with pytest.raises(errors.UnprocessableEntityError) as refused:
        cohere_client(url, "any").rerank(model=MODEL, query=" ", documents=DOCUMENTS)
    assert refused.value.body["error"]["param"] == "query"


def llama_index_rank(base_url: str, **options: Any) -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.tei_rerank import (  # type: ignore[import-untyped]  # has none
        TextEmbeddingInference,
    )

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    ranker = TextEmbeddingInference(base_url=base_url, top_n=2, **options)
    ranked: list[Any] = ranker.postprocess_nodes(nodes, query_str=QUERY)
    return ranked


def test_llamaindex_gives_each_node_its_score(url: str) -> None:
    ranked = llama_index_rank(url)
    assert len(ranked) == 2
    assert ranked[0].node.text == DOCUMENTS[1]
    assert 1 >= ranked[0].score > ranked[1].score >= 0


def test_llamaindex_sends_its_token_bare_or_as_it_is_told(guarded: str) -> None:
    assert llama_index_rank(guarded, auth_token=KEY)[0].node.text == DOCUMENTS[1]
    bearer = llama_index_rank(guarded, auth_token=lambda _: f"Bearer {KEY}")
    assert bearer[0].node.text == DOCUMENTS[1]
    # It looks at no status: what it makes of a refusal is its own, but no order comes of it.
    with pytest.raises((AssertionError, TypeError)):
        llama_index_rank(guarded, auth_token="wrong")


def haystack_rank(base_url: str, key: str = "any", query: str = QUERY, **options: Any) -> list[Any]:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    documents = [Document(content=text) for text in DOCUMENTS]
    ranker = HuggingFaceTEIRanker(url=base_url, top_k=2, token=Secret.from_token(key))
    ranked: list[Any] = ranker.run(query=query, documents=documents, **options)["documents"]
    return ranked


def test_haystack_ranks_by_tei(url: str) -> None:
    from haystack_integrations.components.rankers.huggingface_api import TruncationDirection

    for direction in (None, *TruncationDirection):
        ranked = haystack_rank(url, truncation_direction=direction)
        assert len(ranked) == 2
        assert ranked[0].content == DOCUMENTS[1]
        assert 1 >= ranked[0].score > ranked[1].score >= 0


def test_haystack_shows_why_it_was_refused(url: str, guarded: str) -> None:
    assert haystack_rank(guarded, KEY)[0].content == DOCUMENTS[1]
    with pytest.raises(RuntimeError, match="send a valid API key"):
        haystack_rank(guarded, "wrong")
    with pytest.raises(RuntimeError, match="query: the query is blank"):
        haystack_rank(url, query=" ")


def test_open_webui_sends_its_key_as_bearer(guarded: str) -> None:
    body = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    with httpx.Client(base_url=guarded, timeout=60) as client:
        headers = {"Authorization": f"Bearer {KEY}", "X-OpenWebUI-User-Name": "Ann"}
        answer = client.post("/v1/rerank", json=body, headers=headers)
        assert sorted(one["index"] for one in answer.json()["results"]) == [0, 1, 2]
        assert client.post("/v1/rerank", json=body).status_code == 401
