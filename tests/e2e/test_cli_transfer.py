"""Corpora and documents from the command line: set up, exported, backed up, restored elsewhere."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import one_error, refdesk
from tests.suite import Suite, prepare_suite

PAGES = {
    "moon.md": "# The moon\n\nThe moon is 384,400 kilometres away from the earth on average.\n",
    "tea.txt": "Green tea is best brewed at eighty degrees, for two minutes.\n",
    "sub/rain.txt": "Rain falls when droplets in a cloud become too heavy to stay up.\n",
}
CORPUS = "carried"


@pytest.fixture(scope="module")
def machines(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Suite]]:
    """Two machines: each has a data folder and a retrieve of its own, they share an embed."""
    embed = suite.url("embed")
    found = [
        prepare_suite(tmp_path_factory.mktemp(name), REFDESK_EMBED_URL=embed)
        for name in ("one", "two")
    ]
    try:
        for machine in found:
            machine.services["retrieve"].start()
        yield found
    finally:
        for machine in found:
            machine.stop()


@pytest.fixture(scope="module")
def filled(machines: list[Suite]) -> Suite:
    """The first machine, with a corpus."""
    documents = [
        {"id": id_, "text": text, "metadata": {"folder": id_.rpartition("/")[0]}}
        for id_, text in PAGES.items()
    ]
    url = machines[0].services["retrieve"].url
    made = run(machines[0], "corpora", "create", CORPUS, "--description", "pages")
    assert made == f"made corpus {CORPUS}\n"
    answer = httpx.post(
        f"{url}/corpora/{CORPUS}/documents", json={"documents": documents}, timeout=60
    )
    answer.raise_for_status()
    return machines[0]


def run(machine: Suite, *arguments: str) -> str:
    """A command that succeeds; what it said on stderr."""
    done = refdesk(*arguments, env=machine.env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def told(machine: Suite, *arguments: str) -> str:
    done = refdesk(*arguments, env=machine.env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hits(machine: Suite, corpus: str) -> list[tuple[str, float]]:
    body = {"query": "How far away is the moon?", "corpora": [corpus], "curate": False}
    url = machine.services["retrieve"].url
    answer = httpx.post(f"{url}/retrieve", json=body, timeout=60).json()
    return [(hit["id"], hit["score"]) for hit in answer["hits"]]


def test_a_backup_is_restored_on_another_machine(
    filled: Suite, machines: list[Suite], tmp_path: Path
) -> None:
    file = tmp_path / "pages.backup"
    assert str(file) in run(filled, "backup", CORPUS, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["pages.backup"]
    other = machines[1]
    said = run(other, "restore", str(file))
    assert said == f"restored corpus {CORPUS}: 3 documents, 3 chunks\n"
    assert hits(other, CORPUS) == hits(filled, CORPUS)

    refused = one_error(refdesk("restore", str(file), env=other.env))
    assert "--replace" in refused
    assert run(other, "restore", str(file), "--corpus", "second").startswith("restored")
    assert run(other, "restore", str(file), "--replace").startswith("restored")
    assert hits(other, CORPUS) == hits(other, "second") == hits(filled, CORPUS)


def test_a_file_that_is_not_complete_never_has_the_name(filled: Suite, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("an older one")
    for command in (("backup",), ("export",), ("export", "--vectors")):
        done = refdesk(*command, "not-there", str(file), env=filled.env)
        assert "not-there" in one_error(done)
    assert file.read_text() == "an older one"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    for bad in (file, tmp_path / "no-file"):
        assert str(bad) in one_error(refdesk("restore", str(bad), env=filled.env))
    assert "corpora" not in one_error(refdesk("import", str(file), "--corpus", "x", env=filled.env))
    away = tmp_path / "away" / "file"
    assert str(away.parent) in one_error(refdesk("backup", CORPUS, str(away), env=filled.env))
    assert not away.parent.exists()
    missing = str(tmp_path / "no-file.ndjson")
    assert missing in one_error(refdesk("import", missing, "--corpus", "x", env=filled.env))
    assert told(filled, "corpora", "list", "--json").count('"name"') == 1


def test_an_import_of_which_a_document_can_not_be_stored_is_no_success(
    filled: Suite, tmp_path: Path
) -> None:
    file = tmp_path / "some.ndjson"
    file.write_text('{"id": "good", "text": "words"}\n{"id": "bad"}\n')
    done = refdesk("import", str(file), "--corpus", "some", env=filled.env)
    assert done.returncode == 1
    assert "failed: bad: line 2: text" in done.stderr
    run(filled, "corpora", "delete", "some", "--yes")


@pytest.mark.parametrize("suffix", ["ndjson", "parquet"])
def test_an_export_is_imported_again(
    filled: Suite, machines: list[Suite], tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"pages.{suffix}"
    run(filled, "export", CORPUS, str(file), "--vectors")
    said = run(machines[1], "import", str(file), "--corpus", f"from-{suffix}")
    assert f"made corpus from-{suffix}" in said
    found = dict(hits(machines[1], f"from-{suffix}"))
    assert found == pytest.approx(dict(hits(filled, CORPUS)), abs=1e-3)


def test_corpora_are_shown_and_set_up(filled: Suite) -> None:
    run(filled, "corpora", "create", "mine", "--language", "de", "--no-curate", "--reader", "hr")
    assert "is there already" in run(filled, "corpora", "create", "mine", "--language", "de")
    shown = json.loads(told(filled, "corpora", "show", "mine", "--json"))
    assert (shown["corpus"]["language"], shown["corpus"]["readers"]) == ("de", ["hr"])
    assert shown["stats"]["generations"][0]["state"] == "live"
    said = run(filled, "corpora", "set", "mine", "--everyone", "--half-life-days", "30")
    assert said == "set readers, recency of corpus mine\n"
    shown = json.loads(told(filled, "corpora", "show", "mine", "--json"))["corpus"]
    assert (shown["readers"], shown["recency"]["half_life_days"]) == (None, 30)
    run(filled, "corpora", "set", "mine", "--no-recency", "--curate", "--description", "d [x]")
    table = told(filled, "corpora", "show", "mine")
    assert "d [x]" in table
    assert "semchunk" in table or "chunker" in table
    for wrong in ([], ["--no-recency", "--half-life-days", "3"], ["--everyone", "--reader", "a"]):
        one_error(refdesk("corpora", "set", "mine", *wrong, env=filled.env))
    run(filled, "corpora", "delete", "mine", "--yes")


def test_documents_are_listed_shown_and_deleted(machines: list[Suite], filled: Suite) -> None:
    listed = told(filled, "documents", "list", CORPUS)
    assert all(name in listed for name in PAGES)
    only = json.loads(told(filled, "documents", "list", CORPUS, "--prefix", "sub/", "--json"))
    assert [one["id"] for one in only["documents"]] == ["sub/rain.txt"]
    wanted = json.dumps({"type": "eq", "key": "folder", "value": "sub"})
    assert "tea" not in told(filled, "documents", "list", CORPUS, "--filter", wanted)
    assert "there are more" in run(filled, "documents", "list", CORPUS, "--limit", "1")
    shown = told(filled, "documents", "show", CORPUS, "sub/rain.txt")
    assert PAGES["sub/rain.txt"].strip() in shown
    assert "not-there" in one_error(
        refdesk("documents", "show", CORPUS, "not-there", env=filled.env)
    )
    assert "filter" in one_error(
        refdesk("documents", "list", CORPUS, "--filter", "{", env=filled.env)
    )
    for wrong in ([], ["a", "--prefix", "b"]):
        one_error(refdesk("documents", "delete", CORPUS, "--yes", *wrong, env=filled.env))

    url = filled.services["retrieve"].url
    documents = [{"id": f"gone/{n}", "text": f"text {n}"} for n in range(3)]
    httpx.post(f"{url}/corpora/{CORPUS}/documents", json={"documents": documents}, timeout=60)
    aborted = refdesk("documents", "delete", CORPUS, "gone/0", env=filled.env)
    assert aborted.returncode == 130
    assert "1 were missing" in run(
        filled, "documents", "delete", CORPUS, "gone/0", "gone/9", "--yes"
    )
    run(filled, "documents", "delete", CORPUS, "--prefix", "gone/", "--yes")
    left = json.loads(told(filled, "documents", "list", CORPUS, "--json"))["documents"]
    assert {one["id"] for one in left} == set(PAGES)


def test_a_backup_says_the_sha256_of_its_file(filled: Suite, tmp_path: Path) -> None:
    url = f"{filled.services['retrieve'].url}/corpora/{CORPUS}/backup"
    answer = httpx.get(url, timeout=60)
    assert hashlib.sha256(answer.content).hexdigest() == answer.headers["x-content-sha256"]


def test_a_damaged_corpus_is_named_with_what_to_do_and_can_be_deleted(
    machines: list[Suite],
) -> None:
    machine = machines[1]
    run(machine, "corpora", "create", "broken")
    machine.services["retrieve"].stop()
    shutil.rmtree(machine.data_dir / "corpora" / "broken" / "g1")
    machine.services["retrieve"].start()
    told = refdesk("status", env=machine.env).stderr
    assert "corpus broken: " in told
    assert "delete this corpus" in told
    assert run(machine, "corpora", "delete", "broken", "--yes") == "deleted corpus broken\n"
    assert "broken" not in refdesk("status", env=machine.env).stderr
