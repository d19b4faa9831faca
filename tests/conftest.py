"""Fixtures: the model store, the datasets and the running suite. All of it is the real thing."""

import functools
import gc
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.postgres import Postgres, running_postgres
from tests.suite import REPOSITORY, Suite, prepare_suite

# A shell's background job ignores Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A client of HTTP reads the authorities of the web when it is made, which takes longer than most
# requests. The tests make thousands of clients, for servers on loopback that have no certificates.
ssl.create_default_context = functools.cache(ssl.create_default_context)

# No test has a clock in it: a property that a busy machine is slow to try is none the less true.
hypothesis.settings.register_profile(
    "refdesk", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("refdesk")


def pytest_collection_finish() -> None:
    """Keep the collector of garbage from all that was imported, which takes it a second a round."""
    gc.freeze()


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The standing model store, with the default models in it."""
    command = [sys.executable, "-m", "shared.cli.main", "models", "pull", "default"]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return Settings().models_dir


@pytest.fixture(scope="session")
def minilm_dir(models_dir: Path) -> Path:
    """The folder of all-MiniLM-L6-v2 in the store."""
    return ModelStore(models_dir).require("all-MiniLM-L6-v2").path


@pytest.fixture(scope="session")
def suite(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """The suite, each service started when a test first needs it. Use corpora of your own names."""
    suite = prepare_suite(tmp_path_factory.mktemp("suite"))
    yield suite
    suite.stop()


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real test collections; what needs them is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip("the folder of test collections is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for all tests; each has databases of its own in it."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def catalogue_url(request: pytest.FixtureRequest) -> str:
    """Where an empty catalogue is, of each kind that there is."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()
