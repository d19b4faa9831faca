"""``refdesk eval`` on a tiny collection: the shape of what it prints, and its failures."""

import json
import os
import signal
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.cli.collection import corpus_name, read_collection
from tests.e2e.command import Running, alive, one_error, refdesk, refdesk_process, wait_until
from tests.suite import Suite, with_graphs

ARMS = ("bm25", "dense", "fused", "curated")
DOCUMENTS = {
    "moon": ("The moon", "The moon is 384,400 kilometres away from the earth on average."),
    "tea": ("Tea", "Green tea is best brewed at eighty degrees, for two minutes."),
    "rain": ("", "Rain falls when the droplets in a cloud become too heavy to stay up."),
    "bread": ("Bread", "Sourdough bread rises by wild yeast and lactic acid bacteria."),
    "title": ("Only a title", ""),
}
QUERIES = {
    "q1": ("how far is the moon from the earth", "moon"),
    "q2": ("temperature of green tea", "tea"),
    "q3": ("why does rain fall from a cloud", "rain"),
    "q4": ("what makes sourdough bread rise", "bread"),
}


FIGURES = ["nDCG@10", "R@100", "RR@10"]
COMPARISON = ["difference", "low", "high", "p", "better", "worse", "equal", "mean_loss"]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A collection of five documents and four judged queries, and one that nobody judged."""
    return write(tmp_path / "tiny")


def write(folder: Path, further: int = 0) -> Path:
    """The collection in `folder`, with `further` documents that nobody asks for."""
    folder.mkdir()
    documents = [
        {"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()
    ]
    documents += [{"_id": f"more{one}", "text": f"number {one} of many"} for one in range(further)]
    queries = [{"_id": name, "text": text} for name, (text, _) in QUERIES.items()]
    queries.append({"_id": "q5", "text": "a question without judgements"})
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps(one) for one in documents))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps(one) for one in queries))
    judgements = [f"{name}\t{document}\t1" for name, (_, document) in QUERIES.items()]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judgements))
    return folder


@dataclass(frozen=True)
class Kept:
    """A run with services of its own, and what it said."""

    collection: Path
    data: Path
    env: dict[str, str]
    result: subprocess.CompletedProcess[str]

    @property
    def folder(self) -> Path:
        """The index that was kept."""
        [folder] = (self.data / "eval").iterdir()
        return folder


def own_services(suite: Suite, folder: Path) -> dict[str, str]:
    """The environment of a run with services of its own, whose data go to `folder`."""
    return {"REFDESK_DATA_DIR": str(with_graphs(suite, folder / "data")), "TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def kept(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """An index that was kept, in a data folder that is otherwise new."""
    folder = tmp_path_factory.mktemp("kept")
    collection, env = write(folder / "tiny"), own_services(suite, folder)
    return Kept(collection, folder / "data", env, refdesk_process("eval", str(collection), env=env))


def evaluated(collection: Path, *options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What `refdesk eval DIR --json` prints."""
    result = refdesk("eval", str(collection), *options, "--json", env=env)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_json_is_one_object_of_the_agreed_shape(suite: Suite, collection: Path) -> None:
    answer = evaluated(collection, "--url", suite.url("retrieve"), "--baseline", "fused")
    assert list(answer)[:4] == ["collection", "docs", "queries", "arms"]
    assert (answer["collection"], answer["docs"], answer["queries"]) == ("tiny", 5, 4)
    assert tuple(answer["arms"]) == ARMS
    for scores in answer["arms"].values():
        assert list(scores) == FIGURES
        assert all(0 <= value <= 1 for value in scores.values())
    # Each query shares words and meaning with its one document alone.
    assert answer["arms"]["curated"] == {"nDCG@10": 1.0, "R@100": 1.0, "RR@10": 1.0}
    assert (answer["split"], answer["baseline"]) == ("test", "fused")
    assert list(answer["against_baseline"]) == ["bm25", "dense", "curated"]
    for comparison in answer["against_baseline"].values():
        assert list(comparison) == FIGURES
        assert all(list(one) == COMPARISON for one in comparison.values())
    assert answer["does_no_harm"]["holds"] is True
    assert answer["does_no_harm"]["difference"] >= 0
    assert answer["variants"] == {}
    assert tuple(answer["latency_ms"]) == ARMS
    latency = answer["latency_ms"]["curated"]
    assert {"http", "total", "embed", "curate"} <= set(latency)
    assert 0 < latency["http"]["p50"] <= latency["http"]["p95"]
    assert "curate" not in answer["latency_ms"]["fused"]
    assert answer["index"]["folder"] is None
    assert "worst" not in answer


@pytest.mark.long
def test_a_second_run_stores_nothing_again_unless_it_is_to_be_fresh(
    suite: Suite, collection: Path
) -> None:
    name = corpus_name(read_collection(collection))
    options = ("--url", suite.url("retrieve"), "--arms", "bm25")
    states = []
    for fresh in ((), ("--fresh",), ()):
        answer = evaluated(collection, *options, *fresh)
        info = httpx.get(f"{suite.url('retrieve')}/corpora/{name}", timeout=30).json()
        states.append((answer["index"]["kept"], info["created_at"], info["writes"]))
    assert [kept for kept, _, _ in states[1:]] == [False, True]
    assert states[1][1:] == states[2][1:]
    assert states[0][1] != states[1][1]


def test_limit_takes_the_first_queries_and_arms_those_named(suite: Suite, collection: Path) -> None:
    options = ("--url", suite.url("retrieve"), "--limit", "2", "--arms", "fused,bm25")
    answer = evaluated(collection, *options)
    assert (answer["queries"], list(answer["arms"])) == (2, ["bm25", "fused"])
    assert answer["does_no_harm"] is None


@pytest.mark.long
def test_named_settings_are_run_beside_the_default(
    suite: Suite, collection: Path, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "same: {rerank_window: 50}\n"
        "first only: {top_k: 1, candidates: 1, curate: false, fusion: {method: rrf, k: 10}}\n"
        "nothing: {min_score: 1.0, curate: false, top_k: 2}\n"
    )
    options = ("--url", suite.url("retrieve"), "--arms", "bm25", "--compare", str(path))
    answer = evaluated(collection, *options, "--worst", "2")
    assert list(answer["arms"]) == ["bm25", "curated"]  # the default is always beside them
    variants = answer["variants"]
    assert list(variants) == ["same", "first only", "nothing"]
    assert variants["same"]["settings"] == {"rerank_window": 50}
    same = variants["same"]["against_default"]["nDCG@10"]
    assert (same["difference"], same["p"], same["equal"]) == (0, 1, 4)
    assert {*variants, *answer["arms"]} == set(answer["latency_ms"])
    assert [(one["arm"], one["baseline"]) for one in answer["worst"]] == [
        ("curated", "bm25"),
        ("same", "curated"),
        ("first only", "curated"),
        ("nothing", "curated"),
    ]
    told = refdesk("eval", str(collection), *options, "--worst", "2").stdout
    assert "nDCG@10 against curated" in told
    assert "no query got worse with same than with curated" in told


@pytest.mark.long
def test_the_queries_that_lost_most_are_shown_with_what_was_wanted(
    suite: Suite, collection: Path, tmp_path: Path
) -> None:
    """The one variant that can find nothing but a document that nobody judged as relevant."""
    (collection / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\tmoon\t1\nq1\ttea\t1\nq1\tgone\t1\n"
    )
    path = tmp_path / "settings.yaml"
    path.write_text("short: {top_k: 1}\n")
    options = ("--url", suite.url("retrieve"), "--compare", str(path), "--worst", "3")
    [shown] = [one for one in evaluated(collection, *options)["worst"] if one["arm"] == "short"]
    [loss] = shown["queries"]
    assert (loss["query"], loss["text"]) == ("q1", "how far is the moon from the earth")
    assert loss["nDCG@10"] < loss["baseline_nDCG@10"]
    ranks = {one["id"]: (one["rank"], one["baseline_rank"] is None) for one in loss["judged"]}
    assert ranks == {"moon": (1, False), "tea": (None, False), "gone": (None, True)}
    told = refdesk("eval", str(collection), *options).stdout
    assert "the query that lost most nDCG@10 with the variant short, against curated" in told
    assert "q1: how far is the moon from the earth" in told
    assert "- → -       gone (not in the collection)" in told
    assert "1 → 1       moon: The moon" in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("wide: {rerank_windw: 9}", "wide: rerank_windw"),
        ("odd: {fusion: {method: magic}}", "odd: fusion.method"),
        ("bad: {top_k: 0}", "bad: top_k"),
        ("tok: {max_tokens: 9, tokenizer: none-such}", "tok: "),
        ("set: {filter: !!set {a}}", "set: this can't be sent as JSON"),
        ("big: {top_k: 99999999999999999999}", "big: this can't be sent as JSON"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_stored(
    suite: Suite, tmp_path: Path, settings: str, told: str
) -> None:
    collection = write(tmp_path / f"never-{settings[:3]}")
    path = tmp_path / "settings.yaml"
    path.write_text(f"fine: {{curate: false}}\n{settings}\n")
    options = ("--url", suite.url("retrieve"), "--compare", str(path))
    assert one_error(refdesk("eval", str(collection), *options)).startswith(told)
    names = [
        one["name"]
        for one in httpx.get(f"{suite.url('retrieve')}/corpora", timeout=30).json()["corpora"]
    ]
    assert corpus_name(read_collection(collection)) not in names


def test_without_an_address_it_runs_services_of_its_own_and_keeps_their_index(kept: Kept) -> None:
    assert kept.result.returncode == 0, kept.result.stderr
    assert all(arm in kept.result.stdout for arm in ARMS)
    assert f"the index is kept now in {kept.folder}" in kept.result.stderr
    assert {path.name for path in kept.data.iterdir()} == {"built", "eval", "logs"}
    assert {path.name for path in kept.data.parent.iterdir()} == {"data", "tiny"}


@pytest.mark.long
def test_a_run_that_is_killed_leaves_no_process_and_an_index_that_the_next_completes(
    suite: Suite, tmp_path: Path
) -> None:
    collection, env = write(tmp_path / "many", further=200), own_services(suite, tmp_path)
    running = Running("eval", str(collection), env=env)
    running.wait_for("storing 205 documents")
    killed = running.children()
    assert len(killed) == 3
    running.stop(signal.SIGKILL)
    result = refdesk_process("eval", str(collection), env=env)
    assert result.returncode == 0, result.stderr
    wait_until(lambda: not any(alive(pid) for pid in killed))
    assert "storing 205 documents" in result.stderr
    with sqlite3.connect(next((tmp_path / "data" / "eval").rglob("corpus.db"))) as database:
        assert database.execute("SELECT count(*) FROM documents").fetchone() == (205,)


@pytest.mark.long
def test_a_kept_index_is_searched_at_once_and_a_damaged_one_is_made_anew(kept: Kept) -> None:
    options = ("--arms", "bm25", "--limit", "2")
    again = evaluated(kept.collection, *options, env=kept.env)
    assert again["index"]["kept"] is True
    assert again["index"]["folder"] == str(kept.folder)
    assert again["index"]["bytes"] > 0
    next(kept.folder.rglob("corpus.db")).write_bytes(b"no database at all" * 1000)
    result = refdesk_process("eval", str(kept.collection), *options, "--json", env=kept.env)
    assert "the index is made anew" in result.stderr
    mended = json.loads(result.stdout)
    assert mended["index"]["kept"] is False
    assert mended["arms"] == again["arms"]


def test_ctrl_c_stops_the_services_it_started(
    suite: Suite, collection: Path, tmp_path: Path
) -> None:
    data = with_graphs(suite, tmp_path / "data")
    running = Running("eval", str(collection), env={"REFDESK_DATA_DIR": str(data)})
    log = data / "logs" / "eval" / "retrieve.log"
    wait_until(lambda: log.exists() and log.stat().st_size > 0)  # the last of them has begun
    pids = running.children()
    assert len(pids) == 3
    assert running.stop(signal.SIGINT) == 130
    assert not any(alive(pid) for pid in pids)
    assert "Traceback" not in running.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--arms", "bm52"), "--arms: there is no arm 'bm52'"),
        (("--arms", "bm25", "--baseline", "dense"), "--baseline: 'dense' is not among"),
        (("--compare", "nowhere.yaml"), "nowhere.yaml can't be read"),
    ],
)
def test_a_wrong_option_is_told_before_anything_starts(
    collection: Path, options: tuple[str, ...], told: str
) -> None:
    assert one_error(refdesk("eval", str(collection), *options)).startswith(told)


def test_a_broken_collection_is_told_with_file_and_line(collection: Path) -> None:
    with (collection / "corpus.jsonl").open("a") as file:
        file.write("\n{broken")
    told = one_error(refdesk_process("eval", str(collection)))
    assert f"{collection / 'corpus.jsonl'}:6: not JSON" in told


def test_a_folder_without_a_collection_is_told(tmp_path: Path) -> None:
    assert "no corpus.jsonl" in one_error(refdesk("eval", str(tmp_path)))
    assert "no folder" in one_error(refdesk("eval", str(tmp_path / "nowhere")))


def test_nothing_but_the_result_is_on_stdout(suite: Suite, collection: Path) -> None:
    result = refdesk_process("eval", str(collection), "--url", suite.url("retrieve"), "--json")
    assert result.stdout.count("\n") == 1
    assert os.linesep not in result.stdout.strip()
