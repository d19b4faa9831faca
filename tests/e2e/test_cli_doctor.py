"""`refdesk doctor` as a person runs it: what it finds, and what it makes anew."""

import json
import shutil
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from tests.doctored import documents, make_folder
from tests.e2e.command import refdesk_process
from tests.invariants import Wanted, require_sound


@pytest.fixture
def expected() -> dict[str, Wanted]:
    return documents()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def require_whole(data: Path, expected: dict[str, Wanted]) -> None:
    catalog = Catalog.open(data / "corpora")
    for name in ("c", "other"):
        require_sound(catalog.get(name), expected)
    catalog.close()


def test_a_folder_in_use_is_left_to_the_process_that_has_it(data: Path) -> None:
    catalog = Catalog.open(data / "corpora")
    done = refdesk_process("doctor", "--data", str(data))
    assert done.returncode == 1
    assert "in use by process" in done.stderr
    assert done.stdout == ""
    assert catalog.get("c").bm25("amber", 1)
    catalog.close()


def test_a_lost_index_is_named_and_made_anew(data: Path, expected: dict[str, Wanted]) -> None:
    shutil.rmtree(data / "corpora" / "c" / "g1" / "lexical")
    named = refdesk_process("doctor", "--data", str(data))
    assert named.returncode == 1
    assert named.stdout.startswith(f"derived: {data / 'corpora' / 'c' / 'g1' / 'lexical'}: ")
    done = refdesk_process("doctor", "--data", str(data), "--rebuild", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["findings"] == []
    assert "made anew: " in done.stderr
    require_whole(data, expected)
