"""rerank over HTTP: every document answered, scores in 0..1, the form of Cohere, Jina and vLLM."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.suite import Suite

QUERY = "How do I reset my password?"
DOCUMENTS = [
    "The cafeteria opens at noon.",
    "To reset your password, open the account page and choose 'forgot password'.",
    "",
    "Passwords must have twelve characters.",
]
LONG = "word " * 300  # 302 tokens, where the model reads 256


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("rerank"), timeout=60)


def rerank(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v2/rerank", json={"query": QUERY, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_every_document_is_answered_best_first(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={"query": QUERY, "documents": DOCUMENTS}).json()
    results = answer["results"]
    assert sorted(result["index"] for result in results) == [0, 1, 2, 3]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert results[0]["index"] == 1
    assert results[-1] == {"index": 2, "relevance_score": 0.0}
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 40
    assert not {"truncated", "query_tokens_cut", "tokens_saved"} & answer.keys()


def test_documents_may_be_objects_and_may_be_returned(client: httpx.Client) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    results = rerank(client, documents=documents, top_n=1, return_documents=True)["results"]
    assert [result["document"]["text"] for result in results] == [DOCUMENTS[1]]


def test_duplicates_and_blank_documents_are_answered_and_top_n_may_exceed_them(
    client: httpx.Client,
) -> None:
    documents = ["", DOCUMENTS[1], " \n\t", DOCUMENTS[1], ""]
    results = rerank(client, documents=documents, top_n=50)["results"]
    assert [result["index"] for result in results] == [1, 3, 0, 2, 4]
    assert results[0]["relevance_score"] == results[1]["relevance_score"] > 0
    assert [result["relevance_score"] for result in results[2:]] == [0.0, 0.0, 0.0]


def test_a_request_may_have_4096_documents(client: httpx.Client) -> None:
    results = rerank(client, documents=["x", *[""] * 4095])["results"]
    assert sorted(one["index"] for one in results) == list(range(4096))


def test_blank_documents_alone_are_answered(client: httpx.Client) -> None:
    answer = rerank(client, documents=["", " "], raw_scores=True)
    assert [one["index"] for one in answer["results"]] == [0, 1]
    assert [one["relevance_score"] for one in answer["results"]] == [-1.0, -1.0]


def test_asking_again_gives_the_same_scores_from_the_cache(client: httpx.Client) -> None:
    documents = [f"{text} once more" for text in DOCUMENTS]
    first = rerank(client, documents=documents)["results"]
    again = rerank(client, documents=documents)["results"]
    assert [one["index"] for one in first] == [one["index"] for one in again]
    for one, other in zip(first, again, strict=True):
        assert abs(one["relevance_score"] - other["relevance_score"]) < 0.01
    assert 'refdesk_rerank_cache_lookups_total{found="true"}' in client.get("/metrics").text


def test_a_raw_score_is_the_mean_cosine_that_the_relevance_is_made_of(
    client: httpx.Client, relevance: Callable[[float], float]
) -> None:
    results = rerank(client, documents=DOCUMENTS)["results"]
    raw = rerank(client, documents=DOCUMENTS, raw_scores=True)["results"]
    assert [one["index"] for one in results] == [one["index"] for one in raw]
    for one, other in zip(results, raw, strict=True):
        expected = relevance(other["relevance_score"])
        assert one["relevance_score"] == pytest.approx(expected, abs=0.03)


def test_what_is_cut_at_the_window_is_told_also_from_the_cache(client: httpx.Client) -> None:
    for _ in range(2):
        answer = rerank(client, documents=["short", LONG, "short", LONG])
        assert answer["truncated"] == [
            {"index": 1, "tokens_cut": 46},
            {"index": 3, "tokens_cut": 46},
        ]
    answer = rerank(client, documents=["short"], query=LONG)
    assert answer["query_tokens_cut"] == 46
    assert "truncated" not in answer


@pytest.mark.parametrize(
    "limit",
    [
        {"max_tokens_per_doc": 2},
        {"truncate_prompt_tokens": 2},
        {"max_tokens_per_doc": 2, "truncate_prompt_tokens": -1},
        {"max_tokens_per_doc": 5, "truncate_prompt_tokens": 2},
    ],
)
def test_a_limit_of_tokens_cuts_every_document(client: httpx.Client, limit: dict[str, int]) -> None:
    # The whole text first, so that a cache that mistook one for the other would show.
    whole = rerank(client, documents=["red apple pie crust", "red apple", "red"])
    assert "truncated" not in whole
    answer = rerank(client, documents=["red apple pie crust", "red apple", "red"], **limit)
    assert answer["truncated"] == [{"index": 0, "tokens_cut": 2}]
    scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
    assert scores[0] == pytest.approx(scores[1], abs=0.001)
    assert whole["usage"]["total_tokens"] - answer["usage"]["total_tokens"] == 2


def test_a_limit_above_the_window_is_the_window(client: httpx.Client) -> None:
    answer = rerank(client, documents=[LONG], max_tokens_per_doc=4096, truncate_prompt_tokens=10**9)
    assert answer["truncated"] == [{"index": 0, "tokens_cut": 46}]


def test_tokens_saved_are_those_that_top_n_leaves_out(client: httpx.Client) -> None:
    texts = ["one two three", "one two", "one"]  # 5, 4 and 3 tokens with the special ones
    answer = rerank(client, query="one two three", documents=texts, top_n=1)
    assert answer["results"][0]["index"] == 0
    assert answer["tokens_saved"] == 4 + 3
    assert answer["usage"]["total_tokens"] == 5 + 5 + 4 + 3
    assert "tokens_saved" not in rerank(client, documents=texts, top_n=3)


def test_a_null_is_an_absent_field(client: httpx.Client) -> None:
    optional = (
        "model top_n return_documents raw_scores max_tokens_per_doc truncate_prompt_tokens texts"
    )
    answer = rerank(client, documents=DOCUMENTS, **dict.fromkeys(optional.split()))
    assert len(answer["results"]) == 4


def test_an_empty_model_is_the_one_that_is_served(client: httpx.Client) -> None:
    assert rerank(client, documents=["x"], model="")["model"] == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": " ", "documents": ["x"]}, "query"),
        ({"query": None, "documents": ["x"]}, "query"),
        ({"query": ["x"], "documents": ["x"]}, "query"),
        ({"query": "x", "documents": []}, "documents"),
        ({"query": "x"}, "documents"),
        ({"query": "x", "documents": None, "texts": None}, "documents"),
        ({"query": "x", "documents": "x"}, "documents"),
        ({"query": "x", "documents": {"text": "x"}}, "documents"),
        ({"query": "x", "documents": ["x"] * 4097}, "documents"),
        ({"query": "x", "documents": [1]}, "documents.0"),
        ({"query": "x", "documents": [None]}, "documents.0"),
        ({"query": "x", "documents": [{"body": "x"}]}, "documents.0"),
        ({"query": "x", "documents": [{"text": None}]}, "documents.0"),
        ({"query": "x", "documents": ["x"], "top_n": 0}, "top_n"),
        ({"query": "x", "documents": ["x"], "top_n": 1.5}, "top_n"),
        ({"query": "x", "documents": ["x"], "top_n": "many"}, "top_n"),
        ({"query": "x", "documents": ["x"], "max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"query": "x", "documents": ["x"], "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"query": "x", "documents": ["x"], "return_documents": []}, "return_documents"),
        ({"query": "x", "documents": ["x"], "model": 7}, "model"),
        ({"query": "x", "documents": ["y" * 1_000_001]}, "documents.0"),
        (["x"], None),
        ("x", None),
        (None, None),
    ],
)
def test_a_request_that_makes_no_sense_names_its_field(
    client: httpx.Client, body: object, param: str | None
) -> None:
    response = client.post("/rerank", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "path", ["/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score", "/v1/ranking"]
)
@pytest.mark.parametrize(
    "content",
    [
        b'{"query": "x", "texts": ["x"], "documents": ["x"], "top_n": NaN}',
        b'{"query": "\\ud800", "texts": ["x"], "documents": ["x"]}',
        b'{"query": "\xff", "texts": ["x"], "documents": ["x"]}',
        b"[" * 100_000,
        b'{"query":' * 100_000,
        b"{",
    ],
)
def test_what_is_not_json_is_refused(client: httpx.Client, path: str, content: bytes) -> None:
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_an_unknown_model_names_the_known_one(client: httpx.Client) -> None:
    body = {"query": "x", "documents": ["y"], "model": "rerank-v3.5"}
    response = client.post("/rerank", json=body)
    assert response.status_code == 404
    assert "all-MiniLM-L6-v2" in response.json()["error"]["message"]
