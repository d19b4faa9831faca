"""A configured model that is a server: the policy has to know."""

from pathlib import Path

import pytest

from services.generate.policy.__main__ import main
from services.generate.policy.file import default_policy, parse
from services.generate.policy.servers import unexpected

TEXT = """\
version: 1
classes: [open]
default_class: open
models:
  fast: {tier: utility, kind: configured, price: {input: 0, output: 0}}
  own: {tier: reasoning, kind: configured, price: {input: 0, output: 0}}
tiers: {utility: {models: [fast]}, reasoning: {models: [own]}}
compliance: {open: ["*"]}
rules: [{name: all, then: {tier: reasoning}}]
"""


@pytest.mark.parametrize(
    ("served", "found"),
    [
        (set(), []),
        ({"utility"}, ["fast"]),
        ({"utility", "reasoning"}, ["fast", "own"]),
    ],
)
def test_each_model_that_the_settings_made_a_server_is_named(
    served: set[str], found: list[str]
) -> None:
    policy = parse(TEXT, "p.yaml")
    assert [one.place for one in unexpected(policy, frozenset(served))] == [
        ("models", name) for name in found
    ]


def test_the_packaged_policy_says_that_its_writers_may_be_servers() -> None:
    assert unexpected(default_policy(), frozenset({"utility", "reasoning"})) == []


def test_the_lint_reads_the_same_settings_as_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(TEXT)
    monkeypatch.delenv("REFDESK_REASONING_URL", raising=False)
    assert main([str(path)]) == 0
    monkeypatch.setenv("REFDESK_REASONING_URL", "http://127.0.0.1:1/v1")
    assert main([str(path)]) == 1
    assert f"{path}:6: models.own: own is a server by REFDESK_REASONING_URL" in (
        capsys.readouterr().err
    )
    path.write_text(
        TEXT.replace(
            "{tier: reasoning, kind: configured,",
            "{tier: reasoning, served: true, kind: configured,",
        )
    )
    assert main([str(path)]) == 0
    monkeypatch.setenv("REFDESK_MODEL_DRAFT_S", "never")
    assert main([str(path)]) == 1
    assert "REFDESK_MODEL_DRAFT_S" in capsys.readouterr().err
