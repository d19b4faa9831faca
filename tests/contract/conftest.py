"""Fixtures of the contract tests."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from services.generate.delivery import delivery
from services.rerank.models.calibration import read_calibration
from services.rerank.models.remote import RemoteModel
from services.retrieve.stores.base import CorpusStore
from shared.settings import RerankRemoteApi
from tests.guarded import this_machine_alone
from tests.rerank_server import OpenRemote, remote_settings
from tests.shelf import fill_shelf
from tests.stores import STORES
from tests.suite import Suite
from tests.writers import Serve, writers_over


@pytest.fixture
def serve(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve generate over a desk; see `tests.writers.writers_over`.

    Streams show life at once, and that a caller has left is noticed at once.
    """
    monkeypatch.setattr(delivery, "_KEEP_ALIVE_SECONDS", 0.05)
    return writers_over(models_dir)


@pytest.fixture
def relevance(suite: Suite, minilm_dir: Path) -> Callable[[float], float]:
    """What the running rerank makes of a raw score."""
    revision = httpx.get(suite.url("rerank") + "/info").json()["revision"]
    calibration = read_calibration(minilm_dir, "late-interaction", revision)
    assert calibration is not None
    return lambda raw: float(calibration.apply(np.array([raw]))[0])


@pytest.fixture
async def remote() -> AsyncIterator[OpenRemote]:
    """Open rerank's remote model over a server; all are closed at the end."""
    models: list[RemoteModel] = []

    def make(url: str, api: RerankRemoteApi = "jina", **more: int) -> RemoteModel:
        models.append(RemoteModel(remote_settings(url, api, **more)))
        return models[-1]

    yield make
    for model in models:
        await model.close()


@pytest.fixture(scope="module")
def shelf(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose corpora `shelf` and `secret` were made with the real embed."""
    folder = tmp_path_factory.mktemp("shelf")
    fill_shelf(folder, suite.url("embed"))
    return folder


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CorpusStore]:
    """An empty corpus of each engine behind `CorpusStore`."""
    with STORES[request.param](tmp_path, sparse=False) as store:
        yield store


@pytest.fixture(params=list(STORES))
def sparse_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CorpusStore]:
    """The same of a corpus with sparse vectors."""
    with STORES[request.param](tmp_path, sparse=True) as store:
        yield store


@pytest.fixture
def alone() -> Iterator[None]:
    """See `tests.guarded.this_machine_alone`."""
    with this_machine_alone():
        yield
