"""The bodies and headers that well-known clients send to a reranker, and what they do with it."""

import httpx
import pytest

from tests.suite import Suite

QUERY = "How do I reset my password?"
DOCUMENTS = [
    "The cafeteria opens at noon.",
    "",
    "Reset your password on the account page.",
    "The cafeteria opens at noon.",
]
MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("rerank"), timeout=60)


def test_open_webui_lines_the_scores_up_with_its_documents(client: httpx.Client) -> None:
    body = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    headers = {"Authorization": "Bearer any", "X-OpenWebUI-User-Id": "1"}
    results = client.post("/v1/rerank", json=body, headers=headers).json()["results"]
    by_place = sorted(results, key=lambda one: one["index"])
    assert [one["index"] for one in by_place] == [0, 1, 2, 3]
    scores = [one["relevance_score"] for one in by_place]
    assert scores[2] == max(scores)
    assert scores[0] == scores[3]


def test_llamaindex_gets_one_score_for_each_node(client: httpx.Client) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "truncate": True}
    # Its token is sent without "Bearer".
    response = client.post("/rerank", json=body, headers={"Authorization": "any"})
    ranks = response.json()
    assert isinstance(ranks, list)
    assert len(ranks) == len(DOCUMENTS)
    assert {rank["index"] for rank in ranks} == {0, 1, 2, 3}
    assert all(isinstance(rank["score"], float) for rank in ranks)


@pytest.mark.parametrize(
    "truncation",
    [
        {},
        {"truncate": True, "truncation_direction": "Left"},
        {"truncate": True, "truncation_direction": "Right"},
    ],
)
def test_haystack_takes_the_first_of_a_sorted_list(
    client: httpx.Client, truncation: dict[str, object]
) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, **truncation}
    response = client.post("/rerank", json=body, headers={"Authorization": "Bearer any"})
    ranks = response.json()
    assert not isinstance(ranks, dict)  # it takes an object for an error
    assert [DOCUMENTS[rank["index"]] for rank in ranks[:2]] == [DOCUMENTS[2], DOCUMENTS[0]]


def test_cohere_reads_results_and_what_was_billed(client: httpx.Client) -> None:
    body = {
        "model": MODEL,
        "query": QUERY,
        "documents": DOCUMENTS,
        "top_n": 2,
        "max_tokens_per_doc": 4096,
        "priority": 0,
    }
    headers = {"Authorization": "Bearer any", "X-Fern-Language": "Python", "X-Client-Name": "desk"}
    answer = client.post("/v2/rerank", json=body, headers=headers).json()
    assert isinstance(answer["id"], str)
    assert [one["index"] for one in answer["results"]] == [2, 0]
    assert all(0 <= one["relevance_score"] <= 1 for one in answer["results"])
    assert answer["meta"]["api_version"]["version"] == "2"
    assert answer["meta"]["billed_units"]["search_units"] == 1


def test_the_document_says_which_fields_may_be_null(client: httpx.Client) -> None:
    shapes = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("RerankRequest", "TeiRequest", "ScoreRequest", "RankingRequest"):
        for field, shape in shapes[name]["properties"].items():
            may_be_null = {"type": "null"} in shape.get("anyOf", ())
            assert may_be_null is (field not in shapes[name]["required"]), (name, field)


def test_options_that_were_not_set_may_come_as_nulls(client: httpx.Client) -> None:
    unset = dict.fromkeys(["model", "top_n", "return_documents", "max_tokens_per_doc", "truncate"])
    body = {"query": QUERY, "documents": DOCUMENTS, **unset}
    assert len(client.post("/v2/rerank", json=body).json()["results"]) == len(DOCUMENTS)
    body = {"query": QUERY, "texts": DOCUMENTS, **unset, "raw_scores": None, "return_text": None}
    assert len(client.post("/rerank", json=body).json()) == len(DOCUMENTS)
