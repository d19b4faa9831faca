"""Fixtures of the contract tests."""

from pathlib import Path

import pytest

from tests.writers import Serve, writers_over


@pytest.fixture
def serve(models_dir: Path) -> Serve:
    """Serve generate over a desk; see `tests.writers.writers_over`."""
    return writers_over(models_dir)
