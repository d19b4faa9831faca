"""Loading documents by a job, over HTTP: every kind of body, and what is wrong with some of it."""

import io
import itertools
import json
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.suite import Suite

_names = (f"loads-{number}" for number in itertools.count())
NDJSON = {"content-type": "application/x-ndjson"}


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

    def send(self, **body: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/ingest", **body)

    def load(self, **body: Any) -> dict[str, tuple[str, str | None]]:
        """Load a body to its end; the verdicts: status and code by id."""
        answer = self.send(**body)
        assert answer.status_code == 202, answer.text
        job = self.done(answer.json()["id"])
        assert job["state"] == "succeeded", job
        return self.verdicts(job["id"])

    def done(self, job_id: str) -> dict[str, Any]:
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up:
            job: dict[str, Any] = self.http.get(f"/jobs/{job_id}").json()
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"the job does not end: {job}")

    def verdicts(self, job_id: str) -> dict[str, tuple[str, str | None]]:
        page = self.http.get(f"/jobs/{job_id}/verdicts", params={"limit": 1000}).json()
        return {one["id"]: (one["status"], one["code"]) for one in page["verdicts"]}

    def ids(self) -> list[str]:
        page = self.http.get(f"{self.path}/documents", params={"limit": 1000}).json()
        return [document["id"] for document in page["documents"]]

    def document(self, document_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"{self.path}/documents/{document_id}").json()
        return found


@pytest.fixture
def shelf(http: httpx.Client) -> Shelf:
    return Shelf(http)


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


CREATED, UNCHANGED = ("created", None), ("unchanged", None)


def test_a_body_of_json_is_loaded(shelf: Shelf) -> None:
    documents = [{"id": f"d{n}", "text": f"text {n}", "title": f"T{n}"} for n in range(150)]
    answer = shelf.send(json={"documents": documents})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["corpus"]) == ("ingest", shelf.path.rpartition("/")[2])
    job = shelf.done(job["id"])
    assert job["state"] == "succeeded"
    assert job["result"] == {"documents": 150, "chunks": 150}
    assert job["progress"]["documents"] == job["progress"]["total_documents"] == 150
    assert job["progress"]["chunks"] == 150
    assert job["verdicts"]["created"] == 150
    assert len(shelf.ids()) == 150
    assert set(shelf.load(json={"documents": documents}).values()) == {UNCHANGED}


def test_lines_that_are_no_document_are_verdicts_with_their_number(shelf: Shelf) -> None:
    lines = [
        b'\xef\xbb\xbf{"id": "a", "text": "one"}',
        b"",
        b"{nonsense",
        b'{"id": "b", "text": "t", "metadata": {"n": NaN}}',
        b'{"id": "c"}',
        b"[1, 2]",
        b'{"id": "latin", "text": "caf\xe9"}',
        b'{"id": "a", "text": "again"}',
        b'{"id": "pdf", "text": "%PDF-1.7"}',
        b'{"id": "m", "text": "t", "metadata": {"a": {"b": 1}}}\r',
        b'{"id": "z", "text": "the last one, without a line feed"}',
    ]
    answer = shelf.send(content=b"\n".join(lines), headers=NDJSON)
    job = shelf.done(answer.json()["id"])
    assert job["state"] == "succeeded"
    found = shelf.http.get(f"/jobs/{job['id']}/verdicts").json()["verdicts"]
    assert [(one["id"], one["status"], one["code"]) for one in found] == [
        ("a", "created", None),
        ("line 3", "failed", "invalid_json"),
        ("line 4", "failed", "invalid_json"),
        ("c", "failed", "invalid_request"),
        ("line 6", "failed", "invalid_request"),
        ("line 7", "failed", "invalid_json"),
        ("a", "failed", "duplicate_id"),
        ("pdf", "failed", "unsupported_format"),
        ("m", "failed", "invalid_request"),
        ("z", "created", None),
    ]
    reasons = {one["id"]: one["reason"] for one in found}
    assert "line 5" in reasons["c"]
    assert "text" in reasons["c"]
    assert "line 3" in reasons["line 3"]
    assert "metadata.a" in reasons["m"]
    assert shelf.ids() == ["a", "z"]
    assert shelf.document("a")["text"] == "one"


def test_files_of_a_form_are_loaded_with_what_is_told_about_them(shelf: Shelf) -> None:
    labels = [
        {"file": "dir/b.html", "id": "page", "url": "https://x.example/b", "readers": ["hr"]},
        {"file": "ghost.md", "title": "not there"},
        {"file": "c.txt", "format": "markdown", "metadata": {"year": 2026}},
    ]
    files = [
        ("files", ("a b/größe.md", b"# Moss\n\nGrows slowly.")),
        ("files", ("dir/b.html", b"<title>Heath</title><p>Purple &amp; wide</p>")),
        ("files", ("c.txt", b"# Ferns\n\nUnroll in spring.")),
        ("files", ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100))),
        ("files", ("empty.txt", b"")),
        ("files", ("c.txt", b"the same name again")),
    ]
    found = shelf.load(files=files, data={"documents": json.dumps(labels)})
    assert found["a b/größe.md"] == found["page"] == CREATED
    assert found["picture.png"][0] == found["empty.txt"][0] == "failed"
    assert found["ghost.md"] == ("failed", "file_missing")
    assert found["c.txt"] == ("failed", "duplicate_id")
    assert shelf.ids() == ["a b/größe.md", "c.txt", "page"]
    assert shelf.document("page")["title"] == "Heath"
    assert shelf.document("page")["readers"] == ["hr"]
    ferns = shelf.document("c.txt")
    assert (ferns["title"], ferns["format"], ferns["metadata"]) == (
        "Ferns",
        "markdown",
        {"year": 2026},
    )
    again = shelf.load(files=files[:1])
    assert again == {"a b/größe.md": UNCHANGED}
    again = shelf.load(files=[("files", ("a b/größe.md", b"# Moss\n\nGrows."))])
    assert again == {"a b/größe.md": ("replaced", None)}


def test_members_of_an_archive_are_loaded_and_those_refused_are_told(shelf: Shelf) -> None:
    data = zipped(
        **{
            "docs/a.md": b"# Moss\n\nGrows slowly.",
            "docs/b.txt": b"Ferns unroll in spring.",
            "../../etc/cron.d/x.txt": b"never",
            "noise.bin": bytes(range(256)) * 4,
        }
    )
    found = shelf.load(
        content=data, headers={"content-type": "application/zip"}, params={"prefix": "site/"}
    )
    assert found.pop("site/docs/a.md") == found.pop("site/docs/b.txt") == CREATED
    assert {status for status, _ in found.values()} == {"failed"}
    assert len(found) == 2
    assert shelf.ids() == ["site/docs/a.md", "site/docs/b.txt"]


BAD_BODIES: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({"content": b"", "headers": NDJSON}, 422),
    "no lines": ({"content": b"\n \n", "headers": NDJSON}, 422),
    "no documents": ({"json": {"documents": []}}, 422),
    "a list": ({"json": [1]}, 422),
    "another field": ({"json": {"documents": [{"id": "a", "text": "t"}], "atomic": True}}, 422),
    "half JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    "NaN": (
        {"content": b'{"documents": NaN}', "headers": {"content-type": "application/json"}},
        400,
    ),
    "no type": ({"content": b"x"}, 415),
    "another type": ({"content": b"x", "headers": {"content-type": "text/csv"}}, 415),
    "compressed": ({"content": b"x", "headers": {**NDJSON, "content-encoding": "gzip"}}, 415),
    "no boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
    "no form": (
        {"content": b"rubbish", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
    ),
    "half a form": (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400,
    ),
    "an odd part": ({"files": [("upload", ("a.md", b"x"))]}, 422),
    "labels that are none": (
        {"files": [("files", ("a.md", b"x"))], "data": {"documents": '[{"file": "a.md", "x": 1}]'}},
        422,
    ),
    "labels of no JSON": ({"files": [("files", ("a.md", b"x"))], "data": {"documents": "{"}}, 400),
    "no archive": ({"content": b"rubbish", "headers": {"content-type": "application/zip"}}, 422),
    "a prefix for lines": ({"content": b"{}", "headers": NDJSON, "params": {"prefix": "a/"}}, 422),
    "a bad key": (
        {"content": b"{}", "headers": {**NDJSON, "idempotency-key": "x" * 300}},
        422,
    ),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_a_body_that_is_none_is_refused_and_makes_no_job(shelf: Shelf, kind: str) -> None:
    body, status = BAD_BODIES[kind]
    answer = shelf.send(**body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    jobs = shelf.http.get("/jobs", params={"corpus": shelf.path.rpartition("/")[2]}).json()
    assert jobs["jobs"] == []


def test_a_request_sent_again_with_its_key_is_the_same_job(shelf: Shelf) -> None:
    headers = {**NDJSON, "idempotency-key": f"key of {shelf.path}"}
    line = b'{"id": "a", "text": "one"}'
    first = shelf.send(content=line, headers=headers).json()
    assert shelf.send(content=line, headers=headers).json()["id"] == first["id"]
    other = shelf.send(content=line.replace(b"one", b"two"), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert shelf.done(first["id"])["verdicts"]["created"] == 1


def test_an_unknown_corpus_takes_no_job(http: httpx.Client) -> None:
    answer = http.post("/corpora/nowhere/ingest", content=b"{}", headers=NDJSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "corpus_not_found")


def test_an_upload_may_be_larger_than_other_bodies(shelf: Shelf) -> None:
    line = json.dumps({"id": "x", "text": "y" * 1_000_000}).encode() + b"\n"
    many = b'{"id": "good", "text": "small"}\n' + b'{"id": "x", "text": 7}\n' * 1_700_000
    assert len(line) * 30 < 33_554_432 < len(many)
    answer = shelf.http.post(f"{shelf.path}/documents", content=many, headers=NDJSON)
    assert answer.status_code == 413
    json_type = {"content-type": "application/json"}
    answer = shelf.send(content=many, headers=json_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert "NDJSON" in answer.json()["error"]["message"]
