"""Fixtures of the tests that run commands against the suite."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.suite import Suite

PAGES = {
    "moon.md": "# The moon\n\nThe moon is 384,400 kilometres away from the earth on average.\n",
    "tea.txt": "Green tea is best brewed at eighty degrees, for two minutes.\n",
    "sub/rain.html": "<html><head><title>Rain</title></head><body><p>Rain falls when droplets in "
    "a cloud become too heavy to stay up.</p></body></html>",
}


@pytest.fixture
def desk(suite: Suite) -> Suite:
    """The suite with all four services running."""
    suite.url("generate")
    return suite


@pytest.fixture
def corpus(suite: Suite) -> Iterator[str]:
    """A name for a corpus that no other test uses; it is deleted afterwards."""
    url = suite.url("retrieve")
    name = f"cli-{uuid.uuid4().hex[:12]}"
    yield name
    httpx.delete(f"{url}/corpora/{name}", timeout=30)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of three documents."""
    folder = tmp_path / "pages"
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
