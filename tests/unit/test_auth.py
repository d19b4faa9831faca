"""Keys, groups, and the names by which a principal may read a document."""

import json
from pathlib import Path

import pytest

from shared.auth import LOCAL, KeyFile, Principal, hash_key
from shared.errors import StartupError


def test_a_reader_reads_by_its_name_and_its_groups() -> None:
    anna = Principal("anna", "reader", groups=frozenset({"hr", "law"}))
    assert anna.readers == {"anna", "hr", "law"}
    assert Principal("ben", "reader").readers == {"ben"}


def test_an_admin_reads_every_document() -> None:
    assert Principal("root", "admin", groups=frozenset({"hr"})).readers is None
    assert LOCAL.readers is None


def test_groups_are_read_from_the_keys_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    entries = [
        {"name": "anna", "sha256": hash_key("a"), "groups": ["hr"]},
        {"name": "ben", "sha256": hash_key("b")},
    ]
    path.write_text(json.dumps({"keys": entries}))
    keys = KeyFile.read(path)
    found = [keys.find("Bearer a"), keys.find("Bearer b")]
    assert [one.groups for one in found if one] == [{"hr"}, frozenset()]


@pytest.mark.parametrize("groups", ["hr", [""], ["x" * 129], [7], ["x"] * 1001])
def test_groups_that_are_none_are_named(tmp_path: Path, groups: object) -> None:
    path = tmp_path / "keys.json"
    entry = {"name": "anna", "sha256": hash_key("a"), "groups": groups}
    path.write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(StartupError, match=r"keys\.0\.groups"):
        KeyFile.read(path)
