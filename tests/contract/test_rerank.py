"""rerank over HTTP: every document answered, scores in 0..1, the clients' shapes."""

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


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("rerank"), timeout=60)


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
    assert answer["usage"]["total_tokens"] > 40


def test_documents_may_be_objects_and_may_be_returned(client: httpx.Client) -> None:
    body = {
        "query": QUERY,
        "documents": [{"text": text} for text in DOCUMENTS],
        "top_n": 1,
        "return_documents": True,
    }
    results = client.post("/rerank", json=body).json()["results"]
    assert [result["document"]["text"] for result in results] == [DOCUMENTS[1]]


def test_asking_again_gives_the_same_scores_from_the_cache(client: httpx.Client) -> None:
    body = {"query": QUERY, "documents": [f"{text} once more" for text in DOCUMENTS]}
    first = client.post("/rerank", json=body).json()["results"]
    again = client.post("/rerank", json=body).json()["results"]
    assert [one["index"] for one in first] == [one["index"] for one in again]
    for one, other in zip(first, again, strict=True):
        assert abs(one["relevance_score"] - other["relevance_score"]) < 0.01
    assert 'refdesk_rerank_cache_lookups_total{found="true"}' in client.get("/metrics").text


def test_equal_documents_get_equal_scores(client: httpx.Client) -> None:
    body = {"query": QUERY, "documents": [DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[1]]}
    by_index = {
        one["index"]: one["relevance_score"]
        for one in client.post("/rerank", json=body).json()["results"]
    }
    assert by_index[0] == by_index[2] > by_index[1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": " ", "documents": ["x"]}, "query"),
        ({"query": "x", "documents": []}, "documents"),
        ({"query": "x"}, "documents"),
        ({"query": "x", "documents": ["x"] * 1001}, "documents"),
        ({"query": "x", "documents": [1]}, "documents.0"),
        ({"query": "x", "documents": [{"body": "x"}]}, "documents.0"),
        ({"query": "x", "documents": ["x"], "top_n": 0}, "top_n"),
        ({"query": "x", "documents": ["y" * 1_000_001]}, "documents.0"),
    ],
)
def test_a_request_that_makes_no_sense_names_its_field(
    client: httpx.Client, body: dict[str, object], param: str
) -> None:
    response = client.post("/rerank", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


def test_an_unknown_model_names_the_known_one(client: httpx.Client) -> None:
    body = {"query": "x", "documents": ["y"], "model": "rerank-v3.5"}
    response = client.post("/rerank", json=body)
    assert response.status_code == 404
    assert "all-MiniLM-L6-v2" in response.json()["error"]["message"]
