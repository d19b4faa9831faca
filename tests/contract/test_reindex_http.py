"""Reindex, rollback and the list of generations, over HTTP."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.reindexing import Corpus, code_of, text_of
from tests.suite import Suite


@pytest.fixture(scope="module")
def http(suite: Suite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=suite.url("retrieve"), timeout=120) as client:
        yield client


def test_a_reindex_cuts_every_document_anew_and_takes_over(http: httpx.Client) -> None:
    corpus = Corpus.made(http, chunk_tokens=256, description="before")
    corpus.fill(8)
    before = corpus.info()
    job = corpus.ended(corpus.reindex(chunk_tokens=64))
    assert job["state"] == "succeeded", job
    after = corpus.info()
    assert (after["generation"], after["chunk_tokens"], after["documents"]) == (2, 64, 8)
    assert after["chunks"] > before["chunks"]
    assert after["writes"] > before["writes"]
    assert (after["description"], after["created_at"]) == ("before", before["created_at"])
    assert corpus.generations() == [(1, "previous"), (2, "live")]
    assert http.put(corpus.path, json={}).status_code == 200  # which asks for no length of chunks
    assert job["result"]["generation"] == 2
    assert job["result"]["copied_documents"] == 8
    assert job["progress"]["documents"] == 8
    for arm in ("bm25", "dense"):
        assert corpus.found("Entry 7 is told in turn t0n7 of the register.", arm)[0] == "d7"
    corpus.write({"d7": text_of(7, turn=1)})
    assert corpus.found("t1n7") == ["d7"]
    assert corpus.found("t0n7") == []


def test_a_dry_run_tells_what_it_would_take_and_does_nothing(http: httpx.Client) -> None:
    corpus = Corpus.made(http, chunk_tokens=256)
    corpus.fill(12)
    answer = corpus.reindex(chunk_tokens=64, dry_run=True)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["now"]["chunk_tokens"], told["then"]["chunk_tokens"]) == (256, 64)
    assert (told["documents"], told["sampled"]) == (12, 12)
    assert told["chunks"] > corpus.info()["chunks"]
    assert told["seconds"] > 0
    assert told["bytes"] > told["chunks"] * 384 * 4
    assert told["reused"] < 0.5
    same = corpus.reindex(language="de", dry_run=True).json()
    assert (same["reused"], same["chunks"]) == (1.0, corpus.info()["chunks"])
    assert corpus.generations() == [(1, "live")]
    assert http.get("/jobs", params={"corpus": corpus.name}).json()["jobs"] == []


def test_a_change_of_language_reuses_every_vector(http: httpx.Client) -> None:
    corpus = Corpus.made(http, language="en")
    corpus.write({"a": "Die Häuser stehen am Hafen.", "b": "Ein Haus brennt."})
    assert corpus.found("Häusern") == []
    result = corpus.succeeded(corpus.reindex(language="de"))
    assert result["reused_vectors"] == result["copied_chunks"] == 2
    assert corpus.info()["language"] == "de"
    assert set(corpus.found("Häusern")) == {"a", "b"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"embedder": "no-such-model"}, 404, "unknown_model"),
        ({"chunker": "scissors-9"}, 422, "unknown_chunker"),
        ({"language": "english"}, 422, "unknown_language"),
        ({"chunk_tokens": 8192}, 422, "chunk_too_long"),
        ({"dimension": 385}, 422, "too_many_dimensions"),
        ({"chunk_tokens": 1}, 422, "invalid_request"),
        ({"engine": "qdrant"}, 422, "no_such_engine"),
        ({"engine": "shoebox"}, 422, "invalid_request"),
        ({"qdrant": "elsewhere:6333"}, 422, "other_qdrant"),
        ({"margin": -1}, 422, "invalid_request"),
        ({"judged": [{"query": "x", "relevant": {}}]}, 422, "invalid_request"),
        (
            {"judged": [{"query": "x", "relevant": {"nobody": 1}}], "force": True},
            422,
            "invalid_request",
        ),
        ({"judged": ["x"]}, 422, "invalid_request"),
        ({"keep_days": 1e9}, 422, "invalid_request"),
        ({"colour": "red"}, 422, "invalid_request"),
        ({}, 409, "nothing_to_change"),
        ({"chunk_tokens": 256, "language": "en"}, 409, "nothing_to_change"),
    ],
)
def test_what_can_not_be_done_is_refused_before_there_is_a_job(
    http: httpx.Client, body: dict[str, object], status: int, code: str
) -> None:
    corpus = Corpus.made(http, "refusals", chunk_tokens=256)
    assert code_of(http.post(f"{corpus.path}/reindex", json=body)) == (status, code)
    assert http.get("/jobs", params={"corpus": corpus.name}).json()["jobs"] == []


def test_a_corpus_that_is_not_there_is_told_as_such(http: httpx.Client) -> None:
    for path in ("reindex", "rollback"):
        assert code_of(http.post(f"/corpora/nowhere/{path}", json={})) == (404, "corpus_not_found")
    assert code_of(http.get("/corpora/nowhere/generations")) == (404, "corpus_not_found")


def test_a_reindex_that_changes_nothing_is_done_if_forced(http: httpx.Client) -> None:
    corpus = Corpus.made(http)
    corpus.fill(5)
    result = corpus.succeeded(corpus.reindex(force=True))
    assert (result["generation"], result["reused_vectors"]) == (2, result["chunks"])


def test_two_rollbacks_keep_what_was_written_between_them(http: httpx.Client) -> None:
    corpus = Corpus.made(http, chunk_tokens=256)
    corpus.fill(6)
    assert code_of(corpus.rollback()) == (409, "no_previous_generation")
    corpus.succeeded(corpus.reindex(chunk_tokens=64))
    corpus.write({"d1": text_of(1, turn=1), "new": text_of(99)})
    corpus.delete(["d2"])
    first = corpus.succeeded(corpus.rollback())
    assert first["copied_documents"] == 2
    assert corpus.info()["chunk_tokens"] == 256
    assert corpus.generations() == [(2, "previous"), (3, "live")]
    assert corpus.found("t1n1")[0] == "d1"
    assert corpus.found("t0n1") == []
    assert "d2" not in corpus.ids()
    corpus.write({"d3": text_of(3, turn=2)})
    corpus.delete(["new"])
    second = corpus.succeeded(corpus.rollback())
    assert second["copied_documents"] == 1  # whatever was copied to and fro is known
    assert corpus.info()["chunk_tokens"] == 64
    assert corpus.generations() == [(3, "previous"), (4, "live")]
    assert sorted(corpus.ids()) == sorted({f"d{n}" for n in range(6)} - {"d2"})
    assert corpus.found("t2n3")[0] == "d3"
    assert corpus.found("t1n1")[0] == "d1"


def test_a_second_one_waits_its_turn_by_being_refused(http: httpx.Client) -> None:
    corpus = Corpus.made(http)
    corpus.fill(12)
    running = corpus.reindex(chunk_tokens=64)
    second, third = corpus.reindex(chunk_tokens=128), corpus.rollback()
    assert code_of(second) == code_of(third) == (409, "reindex_running")
    assert running.json()["id"] in second.json()["error"]["message"]
    corpus.succeeded(running)
    corpus.succeeded(corpus.reindex(chunk_tokens=128))
    assert corpus.generations() == [(2, "previous"), (3, "live")]


def test_a_cancelled_one_leaves_the_live_generation_and_nothing_else(http: httpx.Client) -> None:
    corpus = Corpus.made(http)
    corpus.fill(24)
    job = corpus.reindex(chunk_tokens=32, chunk_overlap=8).json()
    while (2, "dark") not in corpus.generations():
        time.sleep(0.02)
    answer = http.post(f"/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert corpus.generations() == [(1, "live")]
    assert corpus.info()["chunk_tokens"] == 256
    corpus.succeeded(corpus.reindex(chunk_tokens=128))


def test_queries_that_get_worse_keep_the_next_generation_out(http: httpx.Client) -> None:
    corpus = Corpus.made(http, language="en")
    decoys = {f"decoy{n}": f"About houses in street {n}, and their gardens." for n in range(20)}
    corpus.write({"right": "A painted house.", **decoys})
    judged = [{"query": "painting houses", "relevant": {"right": 1}}]
    # As they are, none of the words of "right" is in the query.
    job = corpus.ended(corpus.reindex(language="mul", judged=judged, margin=0.0))
    assert (job["state"], job["error"]["code"]) == ("failed", "reindex_refused")
    assert "nDCG@10" in job["error"]["message"]
    assert corpus.generations() == [(1, "live")]
    result = corpus.succeeded(corpus.reindex(language="mul", judged=judged, margin=1.0))
    assert result["ndcg"]["then"] < result["ndcg"]["now"]


def test_what_was_set_meanwhile_is_carried_over(http: httpx.Client) -> None:
    corpus = Corpus.made(http, description="before")
    corpus.fill(12)
    running = corpus.reindex(chunk_tokens=64)
    change = {"description": "meanwhile", "curate": False, "readers": ["root"]}
    http.patch(corpus.path, json=change).raise_for_status()
    corpus.succeeded(running)
    info = corpus.info()
    assert (info["description"], info["curate"]) == ("meanwhile", False)
    assert info["readers"] == ["root"]


def test_a_corpus_that_is_deleted_under_a_reindex_stays_deleted(http: httpx.Client) -> None:
    corpus = Corpus.made(http)
    corpus.fill(24)
    running = corpus.reindex(chunk_tokens=32)
    while (2, "dark") not in corpus.generations():
        time.sleep(0.02)
    http.delete(corpus.path).raise_for_status()
    job = corpus.ended(running)
    assert (job["state"], job["error"]["code"]) == ("failed", "corpus_not_found")
    assert http.get(corpus.path).status_code == 404
    again = Corpus.made(http, corpus.name)
    assert again.generations() == [(1, "live")]


def test_another_corpus_is_made_at_once_where_one_was_deleted_under_a_reindex(
    http: httpx.Client,
) -> None:
    corpus = Corpus.made(http)
    for _ in range(5):
        corpus.fill(2)
        running = corpus.reindex(chunk_tokens=32)
        while (2, "dark") not in corpus.generations():
            time.sleep(0.002)
        http.delete(corpus.path).raise_for_status()
        again = Corpus.made(http, corpus.name)
        corpus.ended(running)
        assert again.generations() == [(1, "live")]
