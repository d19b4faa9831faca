"""Storing documents over HTTP: a verdict for each, and what is wrong with one kept to itself."""

import base64
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.suite import Suite

_names = (f"verdicts-{number}" for number in itertools.count())
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def http(suite: Suite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=suite.url("retrieve"), timeout=120) as client:
        yield client


class Shelf:
    """A corpus of its own for a test."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.path = f"/corpora/{next(_names)}"
        http.put(self.path).raise_for_status()

    def post(self, *documents: Any, **more: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/documents", json={"documents": documents, **more})

    def ids(self) -> list[str]:
        page = self.http.get(f"{self.path}/documents", params={"limit": 1000}).json()
        return [document["id"] for document in page["documents"]]

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(self.path).json()
        return found


@pytest.fixture
def shelf(http: httpx.Client) -> Shelf:
    return Shelf(http)


def doc(document_id: str, text: str = "some text", **more: Any) -> dict[str, Any]:
    return {"id": document_id, "text": text, **more}


BAD: dict[str, tuple[Any, str]] = {
    "no text": ({"id": "bad"}, "documents.1.text"),
    "no id": ({"text": "x"}, "documents.1.id"),
    "a blank id": (doc("  "), "documents.1.id"),
    "an id that is a number": ({"id": 7, "text": "x"}, "documents.1.id"),
    "an id of two lines": (doc("a\nb"), "documents.1.id"),
    "an empty text": (doc("bad", ""), "documents.1.text"),
    "a text too long": (doc("bad", "x" * 2_000_001), "documents.1.text"),
    "10,000 keys": (
        doc("bad", metadata={f"k{n}": n for n in range(10_000)}),
        "documents.1.metadata",
    ),
    "nested metadata": (doc("bad", metadata={"a": {"b": 1}}), "documents.1.metadata.a"),
    "an unknown field": (doc("bad", colour="red"), "documents.1.colour"),
    "a PDF": (doc("bad", "%PDF-1.7 and so on"), "documents.1.text"),
    "nothing to read": (doc("bad", "\u200b"), "documents.1.text"),
    "a list": ([], "documents.1"),
    "the same id twice": (doc("good", "other"), "documents.1.id"),
    "chunks without a stamp": (
        doc("bad", chunks=[{"start": 0, "end": 4, "vector": [1.0]}]),
        "documents.1",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_with_one_document_is_its_own_verdict(shelf: Shelf, kind: str) -> None:
    bad, param = BAD[kind]
    answer = shelf.post(doc("good"), bad, doc("fine"))
    assert answer.status_code == 200, answer.text
    good, failed, fine = answer.json()["results"]
    assert (good, fine) == (
        {"id": "good", "status": "created", "chunks": 1},
        {"id": "fine", "status": "created", "chunks": 1},
    )
    assert (failed["status"], failed["chunks"]) == ("failed", 0)
    assert failed["error"]["param"] == param
    assert failed["error"]["code"]
    assert 0 < len(failed["error"]["message"]) < 1000
    assert shelf.ids() == ["fine", "good"]


@pytest.mark.parametrize("kind", BAD)
def test_atomic_documents_are_refused_for_one_of_them(shelf: Shelf, kind: str) -> None:
    bad, param = BAD[kind]
    answer = shelf.post(doc("good"), bad, doc("fine"), atomic=True)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["param"] == param
    assert shelf.ids() == []
    assert shelf.post(doc("good"), doc("fine"), atomic=True).status_code == 200


def test_where_every_document_is_at_fault_the_first_error_is_the_answer(shelf: Shelf) -> None:
    answer = shelf.post({"id": "a"}, doc("b", "%PDF-1.4"), 3)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "documents.0.text"
    answer = shelf.post(doc("b", "%PDF-1.4"), doc("c", "\u200b"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_format")
    assert shelf.info()["writes"] == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_metadata_that_is_no_json_refuses_the_request(shelf: Shelf, number: str) -> None:
    content = f'{{"documents": [{{"id": "a", "text": "t", "metadata": {{"n": {number}}}}}]}}'
    answer = shelf.http.post(f"{shelf.path}/documents", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert shelf.ids() == []


def test_dates_are_stored_as_they_were_written_and_iso_ones_are_compared_as_dates(
    shelf: Shelf,
) -> None:
    dates = [
        "2024-03-01",
        "2024-03-01T10:00:00Z",
        "2024-03-01T12:00:00+02:00",
        "2024-03-01 10:00",
        "20240301",
        "01.03.2024",
        "03/01/2024",
        "1 March 2024",
        "Fri, 01 Mar 2024 10:00:00 GMT",
        "1709287200",
    ]
    answer = shelf.post(
        *(doc(f"d{n}", f"some text {n}", metadata={"at": at}) for n, at in enumerate(dates))
    )
    assert {one["status"] for one in answer.json()["results"]} == {"created"}
    for number, at in enumerate(dates):
        stored = shelf.http.get(f"{shelf.path}/documents/d{number}").json()
        assert stored["metadata"] == {"at": at}
    name = shelf.path.rpartition("/")[2]
    body = {
        "query": "some text",
        "corpora": [name],
        "top_k": 50,
        "filter": {"key": "at", "type": "gt", "value": "2024-03-01T11:30:00+02:00"},
    }
    found = shelf.http.post("/retrieve", json=body)
    assert found.status_code == 200, found.text
    hits = {hit["document_id"] for hit in found.json()["hits"]}
    assert {"d1", "d2"} <= hits
    assert "d0" not in hits


def test_many_documents_are_deleted_at_once_and_those_that_are_not_there_are_told(
    shelf: Shelf,
) -> None:
    shelf.post(doc("a"), doc("b"), doc("c"))
    before = shelf.info()["writes"]
    path = f"{shelf.path}/documents/delete"
    answer = shelf.http.post(path, json={"ids": ["c", "ghost", "a", "a"]})
    assert answer.json() == {"deleted": ["c", "a"], "missing": ["ghost"]}
    assert shelf.ids() == ["b"]
    assert shelf.info()["writes"] == before + 1
    assert shelf.http.post(path, json={"ids": ["a"]}).json() == {"deleted": [], "missing": ["a"]}
    assert shelf.info()["writes"] == before + 1
    assert shelf.http.post(path, json={"ids": []}).status_code == 422
    assert (
        shelf.http.post("/corpora/nowhere/documents/delete", json={"ids": ["a"]}).status_code == 404
    )


def state(document: dict[str, Any]) -> dict[str, Any]:
    """A document as its owner would ask about it."""
    found = {"format": "text", **document}
    found["sha256"] = hashlib.sha256(found.pop("text").encode()).hexdigest()
    return found


def test_what_has_changed_is_told_from_hashes_alone(shelf: Shelf) -> None:
    stored = [
        doc("a", "one", title="A"),
        doc("b", "two", format="markdown", metadata={"k": ["v"]}, readers=["hr"]),
        doc("c", "three", url="https://x.example/c"),
    ]
    shelf.post(*stored)

    def ask(*documents: dict[str, Any]) -> Any:
        body = {"documents": [state(one) for one in documents]}
        return shelf.http.post(f"{shelf.path}/changes", json=body).json()

    assert ask(*stored) == {"changed": [], "unchanged": 3}
    changed = [
        {**stored[0], "title": "B"},
        {**stored[1], "metadata": {"k": ["w"]}},
        {**stored[2], "text": "three!"},
        doc("new"),
    ]
    assert ask(*changed) == {"changed": ["a", "b", "c", "new"], "unchanged": 0}
    many = [doc(f"n{number}") for number in range(9_997)]
    assert ask(*stored, *many)["unchanged"] == 3
    assert shelf.info()["writes"] == 1


def given(info: dict[str, Any], text: str, vector: Any) -> dict[str, Any]:
    stamp = {name: info[name] for name in ("model", "revision", "dimension")}
    return doc("given", text, stamp=stamp, chunks=[{"start": 0, "end": 9, "vector": vector}])


def test_vectors_that_a_document_brings_are_stored_as_they_are(shelf: Shelf) -> None:
    info = shelf.info()
    vector = np.zeros(info["dimension"], np.float32)
    vector[5] = 2.0  # of another length than 1: what counts is where it points
    text = "The tide.  And what is after it, which no chunk holds. "
    for sent in (base64.b64encode(vector.astype("<f4").tobytes()).decode(), vector.tolist()):
        answer = shelf.post({**given(info, text, sent), "format": "pdf"})
        assert answer.status_code == 200, answer.text
    whole = shelf.http.get(f"{shelf.path}/documents/given").json()
    assert (whole["text"], whole["format"], whole["chunks"]) == (text, "pdf", 1)
    assert answer.json()["results"][0]["status"] == "unchanged"
    name = shelf.path.rpartition("/")[2]
    body = {"query": "tide", "corpora": [name], "arms": ["bm25"], "curate": False}
    hit = shelf.http.post("/retrieve", json=body).json()["hits"][0]
    assert hit["text"] == "The tide."
    assert hit["tokens"] == 3


def test_vectors_that_can_not_be_stored_are_refused_by_name(shelf: Shelf) -> None:
    info = shelf.info()
    size = info["dimension"]
    good = given(info, "The tide. ", [1.0] * size)
    chunk = good["chunks"][0]

    def refused(**changes: Any) -> tuple[int, str]:
        answer = shelf.post({**good, **changes})
        return answer.status_code, answer.json()["error"]["code"]

    def with_vector(vector: Any) -> dict[str, Any]:
        return {"chunks": [{**chunk, "vector": vector}]}

    assert refused(**with_vector([1.0] * (size - 1))) == (422, "bad_vector")
    assert refused(**with_vector([0.0] * size)) == (422, "bad_vector")
    assert refused(**with_vector("?")) == (422, "bad_vector")
    nan = base64.b64encode(np.full(size, np.nan, "<f4").tobytes()).decode()
    assert refused(**with_vector(nan)) == (422, "bad_vector")
    assert refused(chunks=[{**chunk, "end": 99}]) == (422, "bad_chunks")
    assert refused(chunks=[{**chunk, "start": 9, "end": 10}]) == (422, "bad_chunks")
    other = {**good["stamp"], "revision": "other-weights"}
    assert refused(stamp=other) == (409, "model_mismatch")
    assert shelf.info()["writes"] == 0
