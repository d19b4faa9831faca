"""Retrieval quality on real collections, through the real services and `refdesk eval`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def evaluate(folder: Path, *options: str) -> dict[str, Any]:
    """What `refdesk eval FOLDER --json` prints; its whole standard output is one JSON object."""
    done = subprocess.run(
        [sys.executable, "-m", "shared.cli.main", "eval", str(folder), "--json", *options],
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def require(answer: dict[str, Any], least: dict[str, float]) -> None:
    """Each arm's nDCG@10 reaches its mark."""
    found = {arm: answer["arms"][arm]["nDCG@10"] for arm in least}
    assert all(found[arm] >= mark for arm, mark in least.items()), found


@pytest.mark.long
def test_each_stage_adds_to_the_one_before_on_a_small_collection(
    datasets: Path, models_dir: Path
) -> None:
    answer = evaluate(datasets / "xquad-en", "--limit", "100")
    assert (answer["collection"], answer["docs"], answer["queries"]) == ("xquad-en", 240, 100)
    arms = {arm: figures["nDCG@10"] for arm, figures in answer["arms"].items()}
    assert arms["curated"] > arms["fused"] > max(arms["bm25"], arms["dense"]) > 0.9


@pytest.mark.long
@pytest.mark.parametrize(
    ("collection", "least"),
    [
        ("scifact", {"bm25": 0.665, "dense": 0.64, "fused": 0.70, "curated": 0.73}),
        ("nfcorpus", {"bm25": 0.315, "dense": 0.31, "fused": 0.345, "curated": 0.355}),
    ],
)
def test_the_stages_reach_their_marks(
    datasets: Path, models_dir: Path, collection: str, least: dict[str, float]
) -> None:
    require(evaluate(datasets / collection), least)
