"""Reindexing over HTTP: a corpus of its own for a test, and what becomes of it."""

import itertools
import time
from collections.abc import Iterable
from typing import Any

import httpx

_names = (f"remade-{number}" for number in itertools.count())
_NOUNS = ("granite", "harbour", "lantern", "orchard", "compass", "violin", "glacier", "saddle")
_VERBS = ("carries", "measures", "follows", "repairs", "observes", "collects")


def text_of(number: int, turn: int = 0, sentences: int = 14) -> str:
    """The text of a document; each sentence is its own, and one names its turn."""
    lines = [f"Entry {number} is told in turn t{turn}n{number} of the register."]
    for place in range(sentences):
        noun = _NOUNS[(number * 7 + place * 3) % len(_NOUNS)]
        verb = _VERBS[(number + place) % len(_VERBS)]
        lines.append(f"The {noun} of place {place} {verb} whatever shelf {number * 31} holds.")
    return " ".join(lines)


class Corpus:
    """A corpus of a running desk."""

    def __init__(self, http: httpx.Client, name: str) -> None:
        self.http = http
        self.name = name
        self.path = f"/corpora/{name}"

    @classmethod
    def made(cls, http: httpx.Client, name: str | None = None, **settings: Any) -> "Corpus":
        """One that is made with these settings, if it is not there."""
        corpus = cls(http, name or next(_names))
        http.put(corpus.path, json=settings).raise_for_status()
        return corpus

    def write(self, documents: dict[str, str]) -> None:
        """Store texts by id."""
        body = {"documents": [{"id": id_, "text": text} for id_, text in documents.items()]}
        answer = self.http.post(f"{self.path}/documents", json=body)
        assert answer.status_code == 200, answer.text
        assert all(one["status"] != "failed" for one in answer.json()["results"]), answer.text

    def delete(self, ids: Iterable[str]) -> None:
        """Remove documents."""
        answer = self.http.post(f"{self.path}/documents/delete", json={"ids": list(ids)})
        answer.raise_for_status()

    def fill(self, count: int, turn: int = 0) -> None:
        """Store documents d0, d1, …"""
        for start in range(0, count, 50):
            numbers = range(start, min(count, start + 50))
            self.write({f"d{number}": text_of(number, turn) for number in numbers})

    def info(self) -> dict[str, Any]:
        """The corpus as the desk tells it."""
        found: dict[str, Any] = self.http.get(self.path).raise_for_status().json()
        return found

    def ids(self) -> list[str]:
        """The ids of all documents."""
        page = self.http.get(f"{self.path}/documents", params={"limit": 1000}).json()
        return [one["id"] for one in page["documents"]]

    def found(self, query: str, arm: str = "bm25") -> list[str]:
        """The ids of what a search finds."""
        body = {
            "query": query,
            "corpora": [self.name],
            "arms": [arm],
            "curate": False,
            "top_k": 10,
        }
        answer = self.http.post("/retrieve", json=body)
        assert answer.status_code == 200, answer.text
        return [hit["document_id"] for hit in answer.json()["hits"]]

    def reindex(self, **body: Any) -> httpx.Response:
        """Ask for a reindex."""
        return self.http.post(f"{self.path}/reindex", json=body)

    def rollback(self, **body: Any) -> httpx.Response:
        """Ask for a rollback."""
        return self.http.post(f"{self.path}/rollback", json=body)

    def generations(self) -> list[tuple[int, str]]:
        """Number and state of all generations."""
        found = self.http.get(f"{self.path}/generations").raise_for_status().json()
        return [(one["number"], one["state"]) for one in found["generations"]]

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as it is now."""
        found: dict[str, Any] = self.http.get(f"/jobs/{job_id}").json()
        return found

    def ended(self, answer: httpx.Response, seconds: float = 180) -> dict[str, Any]:
        """The job of an answer, once it is over."""
        assert answer.status_code == 202, answer.text
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            job = self.job(answer.json()["id"])
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"the job does not end: {job}")

    def succeeded(self, answer: httpx.Response) -> dict[str, Any]:
        """The result of the job of an answer, which must succeed."""
        job = self.ended(answer)
        assert job["state"] == "succeeded", job
        result: dict[str, Any] = job["result"]
        return result


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]
