"""A start of the writers that fails: it says why, and leaves nothing open."""

import threading
from pathlib import Path
from typing import Any

import pytest

from services.generate.app import build
from shared.errors import StartupError
from shared.settings import Settings
from tests.writers import nowhere


def held(folder: Path) -> list[str]:
    """The files below a folder that this process has open, and its threads that write there."""
    names = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(one.readlink()))
        except FileNotFoundError:  # of the listing itself
            continue
    threads = [one.name for one in threading.enumerate() if one.name == "ledger"]
    return [name for name in names if name.startswith(str(folder))] + threads


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"policy_file": "missing.yaml"}, "the policy can't be used"),
        ({}, "refdesk models pull"),
        ({"reasoning_url": nowhere(), "reasoning_model": "m", "keys_file": "missing"}, "keys"),
    ],
    ids=["its policy", "its model", "its keys"],
)
async def test_a_start_that_fails_for_what_is_missing_leaves_no_file_open(
    given: dict[str, Any], why: str, tmp_path: Path
) -> None:
    before = held(tmp_path)
    files = {name: tmp_path / value for name, value in given.items() if name.endswith("_file")}
    with pytest.raises(StartupError, match=why):
        await build(Settings(models_dir=tmp_path, data_dir=tmp_path / "data", **{**given, **files}))
    assert (tmp_path / "data" / "generate.db").exists()  # it was opened
    assert held(tmp_path) == before
