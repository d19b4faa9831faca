"""``refdesk demo --exit``: what a newcomer sees first, from the models to three cited answers."""

import re
from pathlib import Path

from tests.e2e.command import refdesk


def test_the_demo_answers_three_questions_with_citations_and_ends(
    models_dir: Path, tmp_path: Path
) -> None:
    result = refdesk("demo", "--exit", "--data", str(tmp_path / "demo"), timeout=600)
    assert result.returncode == 0, result.stderr
    answers = result.stdout.split("question: ")[1:]
    assert len(answers) == 3
    for answer in answers:
        assert re.search(r"\[1\] .+ — handbook/.+\.md#\d+", answer), answer
        assert re.search(r"written by (utility|reasoning) \(.+\): .+", answer), answer
        assert re.search(r"time: retrieve .+ total", answer), answer
    assert "Traceback" not in result.stdout + result.stderr
