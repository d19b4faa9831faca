"""``refdesk models`` as a user runs it: its two streams and its exit code."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import refdesk, refdesk_process


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model in it, whose path looks like markup to a terminal library."""
    folder = tmp_path / "[red]models[" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def models(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return refdesk("models", *arguments, env={"REFDESK_MODELS_DIR": str(store)})


def test_a_folder_is_pulled_listed_and_verified(tmp_path: Path, model: Path) -> None:
    store = tmp_path / "store"
    env = {"REFDESK_MODELS_DIR": str(store)}
    first = refdesk_process("models", "pull", str(model), env=env)
    assert (first.returncode, first.stderr) == (0, "copying tiny …\n")
    again = models(store, "pull", str(model))
    assert "already there" in again.stdout

    [listed] = json.loads(models(store, "list", "--json").stdout)
    assert listed["name"] == "tiny"
    assert listed["bytes"] == 9
    assert listed["source"] == f"folder {model}"
    assert listed["licence"] == "unknown"
    assert listed["state"] == "ready"
    table = models(store, "list").stdout
    assert "[red]models[" in table.replace("\n", "")
    assert models(store, "verify").stdout == f"tiny {listed['revision']}: whole\n"


def test_damage_is_listed_and_is_exit_code_1_of_verify(tmp_path: Path, model: Path) -> None:
    store = tmp_path / "store"
    models(store, "pull", str(model))
    [weights] = store.glob("tiny/*/model.safetensors")
    weights.write_bytes(b"Weights")
    env = {"REFDESK_MODELS_DIR": str(store)}
    result = refdesk_process("models", "verify", "tiny", env=env)
    assert result.returncode == 1
    assert "model.safetensors is damaged" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "error: 1 missing or damaged files: run `refdesk models pull tiny`"
    )
    weights.unlink()
    assert "damaged: model.safetensors is missing" in models(store, "list").stdout
    assert models(store, "pull", "tiny").returncode == 0
    assert models(store, "verify").returncode == 0


def test_damage_in_a_revision_not_in_use_says_what_to_delete(tmp_path: Path, model: Path) -> None:
    store = tmp_path / "store"
    models(store, "pull", str(model))
    [old] = store.glob("tiny/*/")
    (old / "model.safetensors").write_bytes(b"")
    (model / "config.json").write_text('{"changed": true}')
    models(store, "pull", str(model))
    result = models(store, "verify")
    assert result.returncode == 1
    assert f"delete {old}, which is not in use" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "nothing"), "nothing is no model that refdesk knows"),
        (("pull", "default", "--name", "mine"), "default has its own name"),
        (("pull", "a/b", "c/d", "--name", "mine"), "--name is for one model"),
        (("verify",), "no model is in the store"),
        (("verify", "nothing"), "model nothing is not in the store"),
        (("verify", "../x"), "'../x' cannot be the name of a model"),
    ],
)
def test_a_failure_is_one_line_on_standard_error(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = models(tmp_path / "store", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_an_empty_store_lists_what_to_do(tmp_path: Path) -> None:
    assert "run `refdesk models pull default`" in models(tmp_path / "store", "list").stdout
    assert models(tmp_path / "store", "list", "--json").stdout == "[]\n"
