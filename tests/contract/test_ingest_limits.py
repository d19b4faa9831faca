"""Uploads that are too large are refused at the limit, and whoever asks is told what it is."""

import io
import itertools
import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.settings import Settings
from tests.e2e.command import refdesk
from tests.loading import CREATED, ZIP, code, load, names, new_corpus
from tests.suite import ServiceProcess, Suite, prepare_suite


@pytest.fixture(scope="module")
def small(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A retrieve that takes uploads of 2 MiB and files of one."""
    retrieve = prepare_suite(
        tmp_path_factory.mktemp("small"),
        REFDESK_EMBED_URL=suite.url("embed"),
        REFDESK_RERANK_URL=suite.url("rerank"),
        REFDESK_MAX_BODY_BYTES=str(1 << 20),
        REFDESK_MAX_UPLOAD_MB="2",
        REFDESK_MAX_FILE_MB="1",
    ).services["retrieve"]
    retrieve.start()
    yield retrieve
    retrieve.stop()
    assert "unexpected_error" not in retrieve.log.read_text()


def test_a_member_may_be_as_large_as_a_file(small: ServiceProcess) -> None:
    chance = (f"{n * 7919 % 10_007} " for n in itertools.count())
    text = "".join(itertools.islice(chance, 230_000)).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.txt", text)
        archive.writestr("small.txt", "small")
    assert len(text) > 1 << 20
    assert len(made.getvalue()) < 2 << 20
    with httpx.Client(base_url=small.url, timeout=120) as http:
        corpus = new_corpus(http)
        found = load(http, corpus, content=made.getvalue(), headers=ZIP)
        assert found == [("large.txt", "failed", "file_too_large"), ("small.txt", *CREATED)]


def answer_to(service: ServiceProcess, sent: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the error that bytes on the wire are answered with."""
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as stream:
            status, length = int(stream.readline().split()[1]), 0
            while (line := stream.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            return status, json.loads(stream.read(length))["error"]


def head(corpus: str, *lines: str) -> bytes:
    first = (
        f"POST {corpus}/ingest HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {ZIP['content-type']}",
    )
    return "\r\n".join((*first, *lines, "", "")).encode()


@pytest.mark.parametrize("further", [(), ("Expect: 100-continue",)])
def test_an_upload_of_two_gigabytes_is_refused_before_any_of_it_is_read(
    suite: Suite, further: tuple[str, ...]
) -> None:
    suite.url("retrieve")
    sent = head("/corpora/any", f"Content-Length: {2 << 30}", *further)
    status, error = answer_to(suite.services["retrieve"], sent)
    assert (status, error["code"]) == (413, "body_too_large")
    assert str(Settings.model_fields["max_upload_mb"].default << 20) in error["message"]


def test_an_upload_of_unknown_length_is_refused_at_the_limit(small: ServiceProcess) -> None:
    with httpx.Client(base_url=small.url, timeout=60) as http:
        corpus = new_corpus(http)
        piece = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
        sent = head(corpus, "Transfer-Encoding: chunked") + piece * 2 + b"1\r\n \r\n"  # and no end
        status, error = answer_to(small, sent)
        assert (status, error["code"]) == (413, "body_too_large")
        name = corpus.rpartition("/")[2]
        assert http.get("/jobs", params={"corpus": name}).json()["jobs"] == []
        assert not list(Path(small.env["REFDESK_DATA_DIR"], "uploads").iterdir())


def test_how_large_what_is_loaded_may_be_is_told_and_kept_to(small: ServiceProcess) -> None:
    with httpx.Client(base_url=small.url, timeout=60) as http:
        corpus = new_corpus(http)
        limits = http.get(f"{corpus}/ingest").json()
        assert limits == {
            "max_upload_bytes": 2 << 20,
            "max_file_bytes": 1 << 20,
            "max_line_bytes": 64 << 20,
        }
        assert code(http.get("/corpora/nowhere/ingest"), 404) == "corpus_not_found"
        most = limits["max_file_bytes"]
        words = b"word " * (most // 5) + b"end."
        files = [
            ("files", ("over.txt", words[: most + 1].ljust(most + 1))),
            ("files", ("small.txt", b"small")),
        ]
        labels = json.dumps([{"file": "over.txt", "id": "docs/over"}])
        found = load(http, corpus, files=files, data={"documents": labels})
        assert found == [("docs/over", "failed", "file_too_large"), ("small.txt", *CREATED)]
        labels = json.dumps([{"file": f"{n}.txt"} for n in range(60_000)])
        answer = http.post(f"{corpus}/ingest", files=files[1:], data={"documents": labels})
        assert code(answer, 413) == "body_too_large"
        assert answer.json()["error"]["param"] == "documents"


def test_the_command_line_learns_how_large_a_file_may_be(
    small: ServiceProcess, tmp_path: Path
) -> None:
    (tmp_path / "over.txt").write_bytes(b"word " * (1 << 18))
    (tmp_path / "small.txt").write_text("words")
    with (tmp_path / "vast.txt").open("wb") as vast:
        vast.truncate(2 << 30)
    arguments = ("ingest", str(tmp_path), "--corpus", next(names), "--url", small.url)
    result = refdesk(*arguments)
    assert result.returncode == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.rpartition("/")[2] for line in told] == [
        "over.txt: too large: 1 MB; at most 1 MiB: split it",
        "vast.txt: too large: 2,147 MB; at most 1 MiB: split it",
    ]
    planned = refdesk(*arguments, "--dry-run")
    assert planned.stdout == ""
    assert "vast.txt: too large" in planned.stderr
