"""``refdesk keys new``: a key is shown once, its hash is kept, and the file is never torn."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.auth import KeyFile
from tests.e2e.command import one_error, refdesk, refdesk_process


def test_a_new_key_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    result = refdesk_process(
        "keys", "new", "desk-bot", "--file", str(path),
        "--role", "admin", "--services", "retrieve,embed", "--corpora", "handbook",
        "--tiers", "utility, code", "--group", "hr", "--group", " law ",
    )  # fmt: skip
    assert result.returncode == 0
    key = result.stdout.strip()
    assert key not in path.read_text()
    assert key not in result.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    principal = KeyFile.read(path).find(f"Bearer {key}")
    assert principal is not None
    assert (principal.name, principal.role) == ("desk-bot", "admin")
    assert principal.services == {"retrieve", "embed"}
    assert principal.corpora == {"handbook"}
    assert principal.tiers == {"utility", "code"}
    assert principal.groups == {"hr", "law"}


def test_a_second_key_is_added_beside_the_first(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = refdesk("keys", "new", "a", env={"REFDESK_KEYS_FILE": str(path)}).stdout.strip()
    second = refdesk("keys", "new", "b", env={"REFDESK_KEYS_FILE": str(path)}).stdout.strip()
    keys = KeyFile.read(path)
    found = [keys.find(key) for key in (first, second)]
    assert [one.name for one in found if one] == ["a", "b"]


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: refdesk_process("keys", "new", f"k{n}", "--file", path), range(4)))
    assert {key.name for key in KeyFile.read(Path(path)).keys} == {"k0", "k1", "k2", "k3"}


def test_a_name_that_is_taken_is_refused_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    refdesk("keys", "new", "a", "--file", str(path))
    before = path.read_bytes()
    assert "'a' already" in one_error(refdesk("keys", "new", "a", "--file", str(path)))
    assert path.read_bytes() == before


def test_a_broken_keys_file_is_named_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"name": "a"}]}))
    assert "keys.0.sha256" in one_error(refdesk("keys", "new", "b", "--file", str(path)))
    assert json.loads(path.read_text()) == {"keys": [{"name": "a"}]}


def test_a_file_that_is_there_keeps_its_permissions_and_a_link_stays_one(tmp_path: Path) -> None:
    path, link = tmp_path / "keys.json", tmp_path / "link.json"
    link.symlink_to(path)
    refdesk("keys", "new", "a", "--file", str(link))
    path.chmod(0o644)
    refdesk("keys", "new", "b", "--file", str(link))
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [key.name for key in KeyFile.read(path).keys] == ["a", "b"]


def test_what_can_not_be_meant_is_refused(tmp_path: Path) -> None:
    file = ["--file", str(tmp_path / "keys.json")]
    assert "no service 'mail'" in one_error(
        refdesk("keys", "new", "a", *file, "--services", "mail")
    )
    assert "--corpora" in one_error(refdesk("keys", "new", "a", *file, "--corpora", " , "))
    assert "1 to 128" in one_error(refdesk("keys", "new", "", *file))
    assert "group" in one_error(refdesk("keys", "new", "a", *file, "--group", " "))
    assert "--file" in one_error(refdesk("keys", "new", "a"))
    assert "must be UTF-8" in one_error(refdesk_process("keys", "new", "\udcff", *file))
    home = "~nobody-of-that-name/keys.json"
    assert home in one_error(refdesk("keys", "new", "a", "--file", home))
    assert one_error(refdesk("keys", "new", "a", *file, "--role", "king"), code=2)
    assert not (tmp_path / "keys.json").exists()
