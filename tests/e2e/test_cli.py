"""The commands that talk to running services, typed as a person would."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import COMMAND, one_error, refdesk, refdesk_process
from tests.suite import Suite, free_port

PAGES = {
    "moon.md": "# The moon\n\nThe moon is 384,400 kilometres away from the earth on average.\n",
    "tea.txt": "Green tea is best brewed at eighty degrees, for two minutes.\n",
    "sub/rain.html": "<html><head><title>Rain</title></head><body><p>Rain falls when droplets in "
    "a cloud become too heavy to stay up.</p></body></html>",
}


@pytest.fixture
def desk(suite: Suite) -> Suite:
    """The suite with all four services running."""
    suite.url("generate")
    return suite


@pytest.fixture
def corpus(desk: Suite) -> Iterator[str]:
    """A name for a corpus that no other test uses; it is deleted afterwards."""
    name = f"cli-{uuid.uuid4().hex[:12]}"
    yield name
    httpx.delete(f"{desk.url('retrieve')}/corpora/{name}", timeout=30)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of three documents."""
    folder = tmp_path / "pages"
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def filled(desk: Suite, corpus: str, pages: Path) -> str:
    """A corpus with the three documents in it."""
    assert refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env).returncode == 0
    return corpus


def documents(desk: Suite, corpus: str) -> set[str]:
    """The ids of what is stored."""
    answer = httpx.get(f"{desk.url('retrieve')}/corpora/{corpus}/documents", timeout=30)
    return {one["id"] for one in answer.json()["documents"]}


def summary(output: str) -> list[int]:
    """created, replaced, unchanged, failed and chunks written, from the table at the end."""
    return [int(number) for number in output.rstrip().splitlines()[-1].split()]


def test_a_folder_becomes_a_corpus_and_a_second_time_nothing_is_sent(
    desk: Suite, corpus: str, pages: Path
) -> None:
    first = refdesk_process("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert first.returncode == 0, first.stderr
    assert summary(first.stderr) == [3, 0, 0, 0, 3]
    assert documents(desk, corpus) == set(PAGES)
    (pages / "tea.txt").write_text("Green tea is best brewed at seventy degrees.\n")
    second = refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert summary(second.stderr) == [0, 1, 2, 0, 1]


def test_rubbish_is_reported_with_reasons_and_the_rest_is_stored(
    desk: Suite, corpus: str, pages: Path
) -> None:
    (pages / "latin.txt").write_bytes(b"caf\xe9")
    (pages / "scan.txt").write_bytes(b"%PDF-1.7\n%\xe2\xe3")
    (pages / "empty.md").write_text("")
    (pages / "huge.txt").write_bytes(b"word " * 2_000_000)
    (pages / "photo.png").write_bytes(b"\x89PNG")
    (pages / "line\nbreak.txt").write_text("This name holds a line break.")
    lines = ['{"id": "one", "text": "A first line."}', '{"id": "two"}', "{"]
    (pages / "lines.jsonl").write_text("\n".join(lines))
    result = refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert result.returncode == 1
    assert documents(desk, corpus) == {*PAGES, "one"}
    assert summary(result.stderr)[:4] == [4, 0, 0, 7]
    told = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(told) == 7
    for name, reason in {
        "latin.txt": "not UTF-8",
        "scan.txt": "a PDF",
        "empty.md": "empty",
        "huge.txt": "too large",
        "break.txt": "control character",
        "lines.jsonl:2": "field text",
        "lines.jsonl:3": "not JSON",
    }.items():
        assert any(name in line and reason in line for line in told), (name, told)
    left_out = "left out (not text, Markdown, HTML or JSON lines): 1, such as photo.png"
    assert left_out in result.stderr
    assert "Traceback" not in result.stderr


def test_two_documents_with_one_id_are_not_silently_one(
    desk: Suite, corpus: str, pages: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tea.txt").write_text("Black tea wants boiling water.")
    result = refdesk("ingest", str(pages), str(other), "--corpus", corpus, env=desk.env)
    assert result.returncode == 1
    assert "its id 'tea.txt' is that of" in result.stderr
    assert summary(result.stderr)[:4] == [3, 0, 0, 1]


def test_many_small_documents_go_in_several_batches(
    desk: Suite, corpus: str, tmp_path: Path
) -> None:
    lines = [json.dumps({"id": f"n{n}", "text": f"Number {n} is a number."}) for n in range(150)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    result = refdesk("ingest", str(tmp_path / "many.jsonl"), "--corpus", corpus, env=desk.env)
    assert result.returncode == 0
    assert summary(result.stderr) == [150, 0, 0, 0, 150]


def test_nothing_to_ingest_is_an_error(desk: Suite, corpus: str, tmp_path: Path) -> None:
    told = one_error(refdesk_process("ingest", str(tmp_path), "--corpus", corpus, env=desk.env))
    assert "nothing to store" in told
    told = one_error(refdesk("ingest", str(tmp_path / "no"), "--corpus", corpus, env=desk.env))
    assert "no file or folder" in told


def test_a_corpus_name_that_can_not_be_is_refused(desk: Suite, pages: Path) -> None:
    assert one_error(refdesk("ingest", str(pages), "--corpus", "No Such/Name", env=desk.env))


def test_retrieve_shows_the_passage_with_its_place(desk: Suite, filled: str) -> None:
    arguments = ("how far is the moon", "--corpus", filled)
    result = refdesk_process("retrieve", *arguments, env=desk.env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1. The moon")
    assert f"{filled}/moon.md#0" in result.stdout
    assert "384,400 kilometres" in result.stdout
    assert "time: " in result.stderr


def test_retrieve_explains_each_place(desk: Suite, filled: str) -> None:
    result = refdesk("retrieve", "green tea", "--corpus", filled, "--explain", env=desk.env)
    for word in ("bm25", "dense", "fused", "curated from place"):
        assert word in result.stdout


def test_retrieve_as_json_is_the_answer_as_it_came(desk: Suite, filled: str) -> None:
    arguments = ("--corpus", filled, "--json", "--top-k", "1", "--no-curate")
    answer = json.loads(refdesk("retrieve", "green tea", *arguments, env=desk.env).stdout)
    [hit] = answer["hits"]
    assert hit["document_id"] == "tea.txt"
    assert answer["timings_ms"]["curate"] == 0


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_ask_gives_an_answer_with_numbered_sources(desk: Suite, filled: str, stream: str) -> None:
    arguments = ("--corpus", filled, "--model", "utility", stream)
    result = refdesk_process("ask", "How far away is the moon?", *arguments, env=desk.env)
    assert result.returncode == 0, result.stderr
    assert "384,400" in result.stdout
    assert "[1]" in result.stdout.split("\n\n")[0]
    assert f"[1] The moon — {filled}/moon.md#0" in result.stdout
    assert "written by utility (extractive)" in result.stderr
    assert "time: retrieve" in result.stderr


def test_ask_as_json_is_the_completion_as_it_came(desk: Suite, filled: str) -> None:
    result = refdesk("ask", "How hot is green tea brewed?", "--corpus", filled, "--json",
                     "--model", "utility", env=desk.env)  # fmt: skip
    answer = json.loads(result.stdout)
    assert answer["object"] == "chat.completion"
    assert answer["refdesk"]["decision"]["tier"] == "utility"


def test_corpora_are_listed_and_deleted(desk: Suite, filled: str) -> None:
    assert filled in refdesk("corpora", "list", env=desk.env).stdout
    listed = json.loads(refdesk("corpora", "list", "--json", env=desk.env).stdout)["corpora"]
    assert {one["name"]: one["documents"] for one in listed}[filled] == 3
    unasked = refdesk_process("corpora", "delete", filled, env=desk.env)
    assert unasked.returncode != 0
    assert filled in refdesk("corpora", "list", env=desk.env).stdout
    assert refdesk("corpora", "delete", filled, "--yes", env=desk.env).returncode == 0
    assert filled not in refdesk("corpora", "list", env=desk.env).stdout


def test_an_unknown_corpus_is_named(desk: Suite) -> None:
    for command in (("retrieve", "x"), ("ask", "x"), ("ask", "x", "--no-stream")):
        told = one_error(refdesk(*command, "--corpus", "nowhere", env=desk.env))
        assert "nowhere" in told
    told = one_error(refdesk("corpora", "delete", "nowhere", "--yes", env=desk.env))
    assert "nowhere" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("",), "query"), (("   ",), "query"), (("x" * 9000,), "query"),
     (("x", "--top-k", "0"), "top_k"), (("x", "--top-k", "-1"), "top_k"),
     (("x", "--top-k", "1000000000"), "top_k")],
)  # fmt: skip
def test_what_the_desk_refuses_is_told_in_its_words(
    desk: Suite, arguments: tuple[str, ...], told: str
) -> None:
    assert told in one_error(refdesk("retrieve", *arguments, "--corpus", "any", env=desk.env))


def test_a_service_that_is_down_is_told_with_the_way_out(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "a.txt").write_text("words")
    for command in (
        ("retrieve", "x", "--corpus", "a"),
        ("ask", "x", "--corpus", "a"),
        ("ingest", str(tmp_path), "--corpus", "a"),
        ("corpora", "list"),
    ):
        told = one_error(refdesk(*command, "--url", url))
        assert told.endswith(f"at {url} does not answer: start the suite with `refdesk up`")


def test_status_shows_each_address_as_it_is() -> None:
    # Square brackets are markup to the library that draws the table.
    addresses = [f"http://[fd00::{number}]:9" for number in range(4)]
    names = ("EMBED", "RERANK", "RETRIEVE", "GENERATE")
    env = {f"REFDESK_{name}_URL": one for name, one in zip(names, addresses, strict=True)}
    result = refdesk("status", env=env)
    assert result.returncode == 1
    assert all(address in result.stdout for address in addresses)


def test_status_tells_what_is_ready_and_what_is_down(desk: Suite, filled: str) -> None:
    up = refdesk("status", env=desk.env)
    assert up.returncode == 0, up.stderr
    assert filled in up.stdout
    half = {**desk.env, "REFDESK_RERANK_PORT": str(free_port())}
    down = refdesk_process("status", "--json", env=half)
    assert down.returncode == 1
    services = json.loads(down.stdout)["services"]
    assert {name: one["state"] for name, one in services.items()} == {
        "embed": "ready", "rerank": "down", "retrieve": "ready", "generate": "ready",
    }  # fmt: skip
    assert services["embed"]["model"] == "all-MiniLM-L6-v2"


def test_a_reader_that_goes_away_ends_the_command_quietly(desk: Suite, filled: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [*COMMAND, "corpora", "list", "--json"],
            env={**os.environ, **desk.env},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert result.returncode == 1
    assert result.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_the_shell_closed_changes_nothing_else(closed: str, tmp_path: Path) -> None:
    env = {**os.environ, "REFDESK_MODELS_DIR": str(tmp_path)}
    for arguments, code in (("models list", 0), ("models pull /nowhere", 1)):
        result = subprocess.run(
            ["sh", "-c", f'"$@" {arguments} {closed}', "sh", *COMMAND],
            env=env,
            capture_output=True,
            text=True,
        )
        assert result.returncode == code, result.stderr
        assert "unexpectedly" not in result.stderr
        assert "error:" not in result.stdout
