"""kill -9 of retrieve in the middle of a reindex: it goes on by itself, and nothing is lost."""

import random
import time
from pathlib import Path

import httpx
import pytest

from shared.settings import ServiceName
from tests.reindexing import Corpus, text_of
from tests.suite import ServiceProcess, Suite, prepare_suite

SEED = 5
DOCUMENTS = 24
UPSTREAM: tuple[ServiceName, ...] = ("embed", "rerank")
SIZES = (64, 128, 48, 96)  # of chunks, one after the other


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.long)])
def test_a_reindex_survives_the_death_of_its_process(
    suite: Suite, tmp_path: Path, kills: int
) -> None:
    upstream = {f"REFDESK_{name.upper()}_URL": suite.url(name) for name in UPSTREAM}
    retrieve = prepare_suite(tmp_path, **upstream).services["retrieve"]
    chance = random.Random(SEED)
    killed, turn = 0, 0
    try:
        retrieve.start()
        with httpx.Client(base_url=retrieve.url, timeout=60) as http:
            corpus = Corpus.made(http, "kept", chunk_tokens=256)
            corpus.fill(DOCUMENTS)
            turns = dict.fromkeys((f"d{n}" for n in range(DOCUMENTS)), 0)
            while killed < kills:
                turn += 1
                killed += one_reindex(corpus, retrieve, turn, chance, turns)
                check(corpus, turn, turns)
    finally:
        retrieve.stop()


def one_reindex(
    corpus: Corpus,
    retrieve: ServiceProcess,
    turn: int,
    chance: random.Random,
    turns: dict[str, int],
) -> int:
    """Reindex, with a write now and then, and kill the service until it is done; how often."""
    answer = corpus.reindex(chunk_tokens=SIZES[turn % len(SIZES)])
    assert answer.status_code == 202, answer.text
    killed = 0
    give_up = time.monotonic() + 240
    next_kill = time.monotonic() + chance.uniform(0.2, 1.5)
    while time.monotonic() < give_up:
        job = corpus.job(answer.json()["id"])
        if job["state"] not in ("queued", "running"):
            assert job["state"] == "succeeded", job
            return killed
        at_swap = (turn + killed) % 2 == 0  # every other time when it is about to swap
        swapping = at_swap and job["stage"] in ("proving", "swapping")
        if killed < 2 and (swapping or (not at_swap and time.monotonic() > next_kill)):
            time.sleep(chance.uniform(0.0, 0.6) if swapping else 0.0)
            retrieve.kill()
            killed += 1
            retrieve.start()
            next_kill = time.monotonic() + chance.uniform(0.2, 3.0)
        elif chance.random() < 0.1:
            number = chance.randrange(DOCUMENTS)
            written = turns[f"d{number}"] + 1
            corpus.write({f"d{number}": text_of(number, written)})
            turns[f"d{number}"] = written
        time.sleep(0.02)
    raise AssertionError(f"the job does not end: {job}")


def check(corpus: Corpus, turn: int, turns: dict[str, int]) -> None:
    """The corpus is as the reindex was to make it, with every document as it was written last."""
    info = corpus.info()
    assert info["chunk_tokens"] == SIZES[turn % len(SIZES)]
    assert sorted(corpus.ids()) == sorted(turns)
    assert [state for _, state in corpus.generations()] == ["previous", "live"]
    for id_, written in turns.items():
        assert corpus.found(f"t{written}n{id_[1:]}") == [id_]
        if written:
            assert corpus.found(f"t{written - 1}n{id_[1:]}") == []
