"""Loading by jobs over HTTP: bodies in, verdicts out."""

import itertools
import time
from typing import Any

import httpx

NDJSON = {"content-type": "application/x-ndjson"}
ZIP = {"content-type": "application/zip"}
CREATED = ("created", None)

names = (f"odd-{number}" for number in itertools.count())


def new_corpus(http: httpx.Client) -> str:
    """Make an empty corpus; its path."""
    path = f"/corpora/{next(names)}"
    http.put(path).raise_for_status()
    return path


def load(http: httpx.Client, corpus: str, **body: Any) -> list[tuple[str, str, str | None]]:
    """Load a body to its end; (id, status, code) of every verdict, in order."""
    answer = http.post(f"{corpus}/ingest", **body)
    assert answer.status_code == 202, answer.text
    job = finished(http, answer.json()["id"])
    assert job["state"] == "succeeded", job
    found = http.get(f"/jobs/{job['id']}/verdicts", params={"limit": 1000}).json()["verdicts"]
    progress = job["progress"]
    assert progress["documents"] == progress["total_documents"] == len(found)
    assert progress["bytes"] == progress["total_bytes"]
    assert all(one["reason"] for one in found if one["status"] == "failed")
    return [(one["id"], one["status"], one["code"]) for one in found]


def finished(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """A job once it is over."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        job: dict[str, Any] = http.get(f"/jobs/{job_id}").json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"the job does not end: {job}")


def ids(http: httpx.Client, corpus: str) -> list[str]:
    """The ids of what is stored."""
    page = http.get(f"{corpus}/documents", params={"limit": 1000}).json()
    return [one["id"] for one in page["documents"]]


def code(answer: httpx.Response, status: int) -> str:
    """The code of an error, which has the one shape and this status."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return str(error["code"])
