"""The laws of the house that a program can check."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("services", "shared") for path in (REPOSITORY / folder).rglob("*.py")
)


def test_services_never_import_each_other_and_shared_imports_none() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_file_grows_past_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_only_the_settings_read_the_environment() -> None:
    # Setting a variable for a library, or passing all of them on to a child, is not reading.
    reading = re.compile(r"os\.environ\.get|os\.getenv|os\.environ\[[^\]]+\](?! = )")
    readers = {
        str(path.relative_to(REPOSITORY)) for path in SOURCES if reading.search(path.read_text())
    }
    assert readers <= {"shared/settings.py"}
