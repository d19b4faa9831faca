"""Reindex, rollback, generations and migrate from the command line."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import one_error, refdesk
from tests.reindexing import Corpus
from tests.suite import Suite

_names = (f"typed-{number}" for number in itertools.count())


@pytest.fixture
def corpus(suite: Suite) -> Iterator[Corpus]:
    with httpx.Client(base_url=suite.url("retrieve"), timeout=60) as http:
        corpus = Corpus.made(http, next(_names))
        corpus.write({"tea": "Green tea is best brewed at eighty degrees.", "rain": "Rain falls."})
        yield corpus


def run(suite: Suite, *arguments: str) -> tuple[str, str]:
    """A command that succeeds; what it said on stdout and stderr."""
    done = refdesk(*arguments, env=suite.env)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_corpus_is_made_anew_and_taken_back(suite: Suite, corpus: Corpus) -> None:
    told, _ = run(suite, "reindex", corpus.name, "--chunk-tokens", "64", "--dry-run")
    assert "64 tokens" in told
    assert "vectors that stay" in told
    assert corpus.generations() == [(1, "live")]
    _, said = run(suite, "reindex", corpus.name, "--chunk-tokens", "64", "--keep-days", "2")
    assert f"corpus {corpus.name} is served from generation 2 (local): 2 documents" in said
    shown, _ = run(suite, "generations", corpus.name)
    assert [line.split()[1] for line in shown.splitlines()[1:]] == ["previous", "live"]
    listed = json.loads(run(suite, "generations", corpus.name, "--json")[0])
    assert [one["made"]["chunk_tokens"] for one in listed["generations"]] == [256, 64]
    assert "generation 3" in run(suite, "rollback", corpus.name)[1]
    assert corpus.info()["chunk_tokens"] == 256


def test_judged_queries_come_from_a_file(suite: Suite, corpus: Corpus, tmp_path: Path) -> None:
    judged = tmp_path / "judged.ndjson"
    judged.write_text('{"query": "How hot for green tea?", "relevant": {"tea": 1}}\n\n')
    run(suite, "reindex", corpus.name, "--language", "de", "--judged", str(judged))
    job = corpus.http.get("/jobs", params={"corpus": corpus.name}).json()["jobs"][0]
    assert job["result"]["ndcg"] == {"now": 1.0, "then": 1.0}
    judged.write_text("no json\n")
    wrong = refdesk("reindex", corpus.name, "--judged", str(judged), env=suite.env)
    assert one_error(wrong) == f"{judged}:1 is no JSON"
    judged.write_text("\n")
    wrong = refdesk("reindex", corpus.name, "--judged", str(judged), env=suite.env)
    assert "holds no judged query" in one_error(wrong)
    wrong = refdesk("reindex", corpus.name, "--judged", str(tmp_path / "none"), env=suite.env)
    assert "can't be read" in one_error(wrong)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("reindex", "NAME"), "made like that already"),
        (("reindex", "NAME", "--chunk-tokens", "9"), "chunk_tokens"),
        (("reindex", "NAME", "--dimension", "385"), "makes 384 numbers"),
        (("corpora", "create", "typed-new", "--chunker", "scissors"), "there is no chunker"),
        (("corpora", "create", "NAME", "--chunker", "semchunk-1"), "exists with chunker"),
        (("reindex", "nowhere", "--force"), "there is no corpus 'nowhere'"),
        (("rollback", "NAME"), "keeps no previous generation"),
        (("generations", "nowhere"), "there is no corpus 'nowhere'"),
        (("migrate", "NAME", "--to", "qdrant"), "there is no engine 'qdrant' here"),
        (("migrate", "NAME", "--to", "qdrant://elsewhere:6333"), "retrieve's Qdrant is not set up"),
        (("migrate", "NAME", "--to", "local"), "made like that already"),
        (("migrate", "NAME", "--to", "local://here"), "--to is local, qdrant or"),
        (("migrate", "NAME", "--to", "shoebox"), "--to is local, qdrant or"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    suite: Suite, corpus: Corpus, arguments: tuple[str, ...], told: str
) -> None:
    named = [corpus.name if one == "NAME" else one for one in arguments]
    assert told in one_error(refdesk(*named, env=suite.env))
