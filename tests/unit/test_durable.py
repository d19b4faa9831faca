"""A file is replaced whole or not at all."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.durable import atomic_write


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_file_is_for_its_owner_alone_unless_said_otherwise(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    atomic_write(tmp_path / "file", b"x", 0o644)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    program = (
        "import sys, pathlib; from shared.durable import atomic_write\n"
        "try: atomic_write(pathlib.Path(sys.argv[1]), b'x' * 100_000)\n"
        "except OSError as error: print(error.strerror)"
    )

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        preexec_fn=no_room,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "File too large"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "gone" / "file", b"x")
    assert not (tmp_path / "gone").exists()
