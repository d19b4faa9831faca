"""``refdesk demo --exit``: what a newcomer sees first, from the models to three cited answers."""

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.command import refdesk_process
from tests.suite import REPOSITORY, Suite, with_graphs

# Those that answer the questions; to read the whole handbook takes most of a minute.
PAGES = ["rank-fusion.md", "hybrid-search.md", "durability.md", "verification.md", "tiers.md"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The sources of refdesk with a handbook of a few pages."""
    for name in ("services", "shared"):
        shutil.copytree(REPOSITORY / name, tmp_path / "checkout" / name)
    concepts = tmp_path / "checkout" / "docs" / "concepts"
    concepts.mkdir(parents=True)
    for page in PAGES:
        shutil.copy(REPOSITORY / "docs" / "concepts" / page, concepts)
    return tmp_path / "checkout"


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_demo_answers_three_questions_with_citations_and_ends(
    suite: Suite, checkout: Path, whole: bool
) -> None:
    env = {"PYTHONPATH": str(REPOSITORY if whole else checkout)}
    data = checkout / ".demo"
    if not whole:
        with_graphs(suite, data)
    result = refdesk_process("demo", "--exit", "--data", str(data), env=env, timeout=600)
    assert result.returncode == 0, result.stderr
    answers = result.stdout.split("question: ")[1:]
    assert len(answers) == 3
    for answer in answers:
        assert re.search(r"\[1\] .+ — handbook/.+\.md#\d+", answer), answer
        assert re.search(r"written by (utility|reasoning) \(.+\): .+", answer), answer
        assert re.search(r"time: retrieve .+ total", answer), answer
    assert "Traceback" not in result.stdout + result.stderr
