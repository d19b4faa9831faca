"""``refdesk route`` and ``refdesk policy lint``: who would answer, and whether a policy is good."""

import asyncio
import json
from pathlib import Path

from tests.desk import Desk
from tests.e2e.command import one_error, refdesk, refdesk_process
from tests.policies import POLICY_TEXT
from tests.suite import Suite
from tests.writers import WHEN, writers_over

QUESTION = "How far away is the moon?"


def test_route_says_who_would_answer_and_why(desk: Suite, corpus: str, pages: Path) -> None:
    assert refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env).returncode == 0
    result = refdesk_process("route", QUESTION, "--corpus", corpus, env=desk.env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("utility: utility-writer, checks strict\n")
    assert "rule good_evidence, data class internal (default)" in result.stdout
    assert "+1.000 good_evidence: intent lookup; " in result.stdout
    assert "policy " in result.stdout
    assert "time: retrieve" in result.stderr

    more = ("--model", "reasoning", "--data-class", "restricted", "--json")
    asked = refdesk("route", QUESTION, "--corpus", corpus, *more, env=desk.env)
    decision = json.loads(asked.stdout)
    assert (decision["tier"], decision["data_class"]) == ("reasoning", "restricted")

    nothing = refdesk("route", "Who won in Brazil?", "--corpus", corpus, env=desk.env)
    assert nothing.stdout.startswith("no writer is asked: ")

    wrong = refdesk("route", QUESTION, "--corpus", corpus, "--data-class", "top", env=desk.env)
    assert "no data class 'top'; there are public, internal" in one_error(wrong)


def test_a_policy_is_checked_without_any_service(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY_TEXT)
    good = refdesk_process("policy", "lint", str(path))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("1 rules, 6 models in 2 tiers, 2 classes; SHA-256 ")

    path.write_text(POLICY_TEXT.replace("start: small", "start: tiny"))
    bad = refdesk_process("policy", "lint", str(path))
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith(f"{path}:")
    assert "there is no tier named tiny" in bad.stderr

    learned = "learned: {model: none.json, cheap: small, strong: large}\nscored:\n"
    path.write_text(POLICY_TEXT.replace("scored:\n", learned))
    unread = refdesk_process("policy", "lint", str(path))
    assert unread.returncode == 1
    assert f"learned.model: {tmp_path / 'none.json'} can't be read: No such file" in unread.stderr

    missing = refdesk_process("policy", "lint", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1
    assert "can't be read: No such file" in missing.stderr


async def test_without_a_corpus_all_are_searched(models_dir: Path) -> None:
    async with writers_over(models_dir)(Desk()) as client:
        url = str(client.base_url)
        routed = await asyncio.to_thread(refdesk_process, "route", WHEN, "--url", url)
        asked = await asyncio.to_thread(refdesk_process, "ask", WHEN, "--url", url)
    assert routed.stdout.startswith("utility: utility-writer"), routed.stderr
    assert "in 1843" in asked.stdout, asked.stderr
