"""The commands that talk to running services, typed as a person would."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import COMMAND, one_error, refdesk, refdesk_process
from tests.suite import Suite, free_port


@pytest.fixture
def filled(desk: Suite, corpus: str, pages: Path) -> str:
    """A corpus with the three documents in it."""
    assert refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env).returncode == 0
    return corpus


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
