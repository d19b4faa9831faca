"""The parts of `refdesk eval`: ways to ask, measures, losses, the kept index, and asking again."""

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ir_measures
import pytest
from fastapi import FastAPI
from ir_measures import RR, R, nDCG
from rich.console import Console

from shared.cli.collection import read_collection
from shared.cli.evaluation import runs
from shared.cli.evaluation.cache import cache_folder, held, size_bytes
from shared.cli.evaluation.figures import MEASURES, figures, means
from shared.cli.evaluation.losses import worst
from shared.cli.evaluation.runs import search
from shared.cli.evaluation.variants import (
    ARMS,
    Variant,
    baseline_of,
    check_baseline,
    chosen_arms,
    read_variants,
)
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.settings import Settings
from tests.suite import serving

CURATED = next(arm for arm in ARMS if arm.name == "curated")

QRELS = {"q1": {"a": 1, "b": 2}, "q2": {"c": 1}, "q3": {"d": 1, "e": 0}}
GOOD = {"q1": ["b", "a", "x"], "q2": ["x", "c"], "q3": ["d"]}
POOR = {"q1": ["x", "y", "a"], "q2": ["x", "c"], "q3": []}


def test_arms_are_chosen_by_name_and_kept_in_order() -> None:
    assert [arm.name for arm in chosen_arms("curated, bm25")] == ["bm25", "curated"]
    for names, told in (("bm52", "no arm 'bm52'; there is bm25, "), (" , ", "at least one")):
        with pytest.raises(CliError, match=told):
            chosen_arms(names)


def test_the_default_names_no_field() -> None:
    assert [dict(arm.settings) for arm in ARMS if arm.name == "curated"] == [{}]


def test_the_baseline_is_the_best_single_arm_unless_one_is_named() -> None:
    ndcg = {"bm25": 0.3, "dense": 0.4, "curated": 0.5}
    assert baseline_of(list(ndcg), "", ndcg) == "dense"
    assert baseline_of(list(ndcg), "bm25", ndcg) == "bm25"
    assert baseline_of(["fused", "curated"], "", {"fused": 0.1, "curated": 0.2}) == "fused"
    with pytest.raises(CliError, match="'fused' is not among the arms run: bm25"):
        check_baseline("fused", ["bm25"])


def test_variants_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("wide: {rerank_window: 100}\nplain:\n  fusion: {k: 10}\n  curate: false\n")
    assert read_variants(path) == [
        Variant("wide", {"rerank_window": 100}),
        Variant("plain", {"fusion": {"k": 10}, "curate": False}),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "must hold named settings"),
        ("- a", "must hold named settings"),
        ("a: {b: [}", "not YAML"),
        ("a: 1", "a: must hold at least one FIELD"),
        ("a: {}", "a: must hold at least one FIELD"),
        ("1: {k: 1}", "the name 1 must be a text"),
        ("a: {1: 1}", "a: the field 1 must be a text"),
        ("bm25: {curate: true}", "'bm25' is the name of an arm"),
        ("a: {min_score: .nan}", "a: min_score must be a finite number"),
        ("a: {fusion: {weights: {bm25: -.inf}}}", "a: fusion.weights.bm25 must be a finite"),
        ("a: {query: other}", "a: query is what the evaluation itself sets"),
        ("a: {curate: true}\na: {curate: false}", "'a' comes twice"),
        ("a: {curate: true, curate: false}", "'curate' comes twice"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("? [a, b]\n: {curate: true}", "not YAML"),
    ],
)
def test_a_broken_file_of_variants_is_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(CliError) as caught:
        read_variants(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)


def test_a_file_of_variants_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="can't be read: No such file"):
        read_variants(tmp_path / "none.yaml")


@pytest.mark.parametrize("rankings", [GOOD, POOR])
def test_the_means_are_those_of_ir_measures(rankings: dict[str, list[str]]) -> None:
    run = {
        query: {one: -float(place) for place, one in enumerate(found)}
        for query, found in rankings.items()
    }
    expected = ir_measures.calc_aggregate([nDCG @ 10, R @ 100, RR @ 10], QRELS, run)
    found = means(figures(QRELS, rankings))
    assert list(found) == list(MEASURES)
    assert found == pytest.approx({str(one): value for one, value in expected.items()})


def test_queries_that_lost_are_shown_worst_first_with_what_came_instead() -> None:
    values, before = figures(QRELS, POOR), figures(QRELS, GOOD)
    losses = worst(5, QRELS, values, before, POOR, GOOD)
    assert [loss.query for loss in losses] == ["q3", "q1"]  # q2 is as it was
    gone, moved = losses
    assert [(one.id, one.rank, one.baseline_rank) for one in gone.judged] == [("d", None, 1)]
    assert (gone.value, gone.baseline_value, gone.instead) == (0, 1, ())
    assert [(one.id, one.relevance, one.rank, one.baseline_rank) for one in moved.judged] == [
        ("b", 2, None, 1),
        ("a", 1, 3, 2),
    ]
    assert moved.instead == ((1, "x"), (2, "y"))
    assert worst(1, QRELS, values, before, POOR, GOOD) == losses[:1]
    assert worst(5, QRELS, before, before, GOOD, GOOD) == []


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text(f'{{"_id": "d", "text": "{text}"}}')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "one?"}')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    return folder


def test_an_index_is_kept_apart_by_all_that_it_depends_on(tmp_path: Path, models_dir: Path) -> None:
    collection = read_collection(write(tmp_path / "one", "text"))
    other = read_collection(write(tmp_path / "one", "another text"))
    usual = Settings(data_dir=tmp_path / "data", models_dir=models_dir)
    ways = [
        usual,
        usual.model_copy(update={"chunk_tokens": 128}),
        usual.model_copy(update={"chunk_overlap": 0}),
        usual.model_copy(update={"embed_precision": "fp32"}),
        usual.model_copy(update={"embed_backend": "remote", "embed_remote_url": "http://a"}),
        usual.model_copy(update={"embed_backend": "remote", "embed_remote_url": "http://b"}),
    ]
    folders = [cache_folder(way, collection) for way in ways] + [cache_folder(usual, other)]
    assert len(set(folders)) == len(folders)
    assert {folder.parent for folder in folders} == {tmp_path / "data" / "eval"}
    moved = usual.model_copy(update={"retrieve_port": 1, "rerank_cache_mb": 1})
    assert cache_folder(moved, collection) == folders[0]


def test_a_kept_index_is_used_by_one_evaluation_at_a_time(tmp_path: Path) -> None:
    folder, entered = tmp_path / "eval" / "one", threading.Event()
    with (tmp_path / "told").open("w+") as told:

        def second() -> None:
            with held(folder, Console(file=told)):
                entered.set()

        with held(folder, Console(quiet=True)):
            waiting = threading.Thread(target=second)
            waiting.start()
            assert not entered.wait(0.5)
        assert entered.wait(30)
        waiting.join()
        told.seek(0)
        assert "which evaluates the same collection" in told.read()


def test_the_size_of_a_folder_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "a" / "b" / "two").write_bytes(b"4567")
    assert size_bytes(tmp_path) == 7


@dataclass
class Desk:
    """A desk that answers what it is told to, in turn, and keeps what it was asked."""

    answers: list[dict[str, Any]]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/retrieve")
        def retrieve(body: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(body)
            return self.answers[min(len(self.asked), len(self.answers)) - 1]

        return app


def answer(*documents: str, degraded: list[str] | None = None, **more: Any) -> dict[str, Any]:
    hits = [{"document_id": one, "duplicates": []} for one in documents]
    timings = {"bm25": 1.5, "curate": 0.0}
    return {"hits": hits, "degraded": degraded or [], "timings_ms": timings, **more}


async def asked(
    desk: Desk, queries: dict[str, str], variants: list[Variant]
) -> dict[str, runs.Run]:
    async with serving(desk.app()) as url:
        with Api("retrieve", Settings(), url) as api:
            return await asyncio.to_thread(search, api, "c", queries, variants, lambda: None)


async def test_variants_take_turns_in_going_first() -> None:
    desk = Desk([answer("a")])
    variants = [Variant("one", {"curate": False}), Variant("two", {"candidates": 7})]
    found = await asked(desk, {"q1": "x", "q2": "y"}, variants)
    order = [(body["query"], body["candidates"]) for body in desk.asked]
    assert order == [("x", 400), ("x", 7), ("y", 7), ("y", 400)]
    assert found["one"].rankings == found["two"].rankings == {"q1": ["a"], "q2": ["a"]}


async def test_a_document_takes_the_place_of_its_best_chunk() -> None:
    skip = [{"stage": "curate", "reason": "sure"}, {"stage": "curate", "reason": "twice"}]
    run = (await asked(Desk([answer("a", "b", "a", "c", skipped=skip)]), {"q": "x"}, [ARMS[0]]))[
        "bm25"
    ]
    assert run.rankings == {"q": ["a", "b", "c"]}
    assert run.skipped == {"curate": 1}
    assert list(run.latency_ms()) == ["http", "bm25"]  # a stage that did not run has no latency
    assert run.latency_ms()["bm25"] == {"p50": 1.5, "p95": 1.5}


async def test_an_answer_without_a_stage_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "_PAUSES_S", (0.0, 0.0))
    desk = Desk([answer("x", degraded=["curate"]), answer("a")])
    found = await asked(desk, {"q": "x"}, [CURATED])
    assert found["curated"].rankings == {"q": ["a"]}
    assert len(found["curated"].timings_ms["http"]) == 1


async def test_a_stage_that_keeps_failing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PAUSES_S", (0.0, 0.0))
    desk = Desk([answer("x", degraded=["curate"])])
    with pytest.raises(CliError, match="answered 3 times without curate"):
        await asked(desk, {"q": "x"}, [CURATED])
    assert len(desk.asked) == 3
