"""``refdesk eval`` on a tiny collection: the shape of what it prints, and its failures."""

import json
import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from shared.cli.collection import corpus_name, read_collection
from tests.e2e.command import Running, alive, one_error, refdesk, wait_until
from tests.suite import Suite

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


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A collection of five documents and four judged queries, and one that nobody judged."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    documents = [
        {"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()
    ]
    queries = [{"_id": name, "text": text} for name, (text, _) in QUERIES.items()]
    queries.append({"_id": "q5", "text": "a question without judgements"})
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps(one) for one in documents))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps(one) for one in queries))
    judgements = [f"{name}\t{document}\t1" for name, (_, document) in QUERIES.items()]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judgements))
    return folder


def test_json_is_one_object_of_the_agreed_shape(suite: Suite, collection: Path) -> None:
    result = refdesk("eval", str(collection), "--url", suite.url("retrieve"), "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert list(answer) == ["collection", "docs", "queries", "arms"]
    assert (answer["collection"], answer["docs"], answer["queries"]) == ("tiny", 5, 4)
    assert tuple(answer["arms"]) == ARMS
    for scores in answer["arms"].values():
        assert list(scores) == ["nDCG@10", "R@100", "RR@10"]
        assert all(0 <= value <= 1 for value in scores.values())
    # Each query shares words and meaning with its one document alone.
    assert answer["arms"]["curated"] == {"nDCG@10": 1.0, "R@100": 1.0, "RR@10": 1.0}


def test_a_second_run_stores_nothing_again(suite: Suite, collection: Path) -> None:
    name = corpus_name(read_collection(collection))
    generations = []
    for _ in range(2):
        refdesk("eval", str(collection), "--url", suite.url("retrieve"))
        answer = httpx.get(f"{suite.url('retrieve')}/corpora/{name}", timeout=30)
        generations.append(answer.json()["generation"])
    assert generations[0] == generations[1]


def test_limit_takes_the_first_queries(suite: Suite, collection: Path) -> None:
    arguments = ("--url", suite.url("retrieve"), "--json", "--limit", "2")
    assert json.loads(refdesk("eval", str(collection), *arguments).stdout)["queries"] == 2


def test_without_an_address_it_runs_services_of_its_own_and_leaves_nothing(
    suite: Suite, collection: Path, tmp_path: Path
) -> None:
    suite.url("rerank")  # by now both graphs are built
    shutil.copytree(suite.data_dir / "built", tmp_path / "data" / "built")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {"REFDESK_DATA_DIR": str(tmp_path / "data"), "TMPDIR": str(scratch)}
    result = refdesk("eval", str(collection), env=env)
    assert result.returncode == 0, result.stderr
    assert all(arm in result.stdout for arm in ARMS)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"built", "logs"}
    assert list(scratch.iterdir()) == []


def test_ctrl_c_stops_the_services_it_started(
    suite: Suite, collection: Path, tmp_path: Path
) -> None:
    suite.url("rerank")  # by now both graphs are built
    shutil.copytree(suite.data_dir / "built", tmp_path / "data" / "built")
    running = Running("eval", str(collection), env={"REFDESK_DATA_DIR": str(tmp_path / "data")})
    wait_until(lambda: len(running.children()) == 3)
    pids = running.children()
    assert running.stop(signal.SIGINT) == 130
    assert not any(alive(pid) for pid in pids)
    assert "Traceback" not in running.output


def test_a_broken_collection_is_told_with_file_and_line(collection: Path) -> None:
    with (collection / "corpus.jsonl").open("a") as file:
        file.write("\n{broken")
    told = one_error(refdesk("eval", str(collection)))
    assert f"{collection / 'corpus.jsonl'}:6: not JSON" in told


def test_a_folder_without_a_collection_is_told(tmp_path: Path) -> None:
    assert "no corpus.jsonl" in one_error(refdesk("eval", str(tmp_path)))
    assert "no folder" in one_error(refdesk("eval", str(tmp_path / "nowhere")))


def test_nothing_but_the_result_is_on_stdout(suite: Suite, collection: Path) -> None:
    result = refdesk("eval", str(collection), "--url", suite.url("retrieve"), "--json")
    assert result.stdout.count("\n") == 1
    assert os.linesep not in result.stdout.strip()
