"""Opening the backend that the settings name, or saying why not."""

import sys
from pathlib import Path

import pytest

from services.rerank.backends import open_model
from services.rerank.models.late_interaction import LateInteraction
from services.rerank.models.remote import RemoteModel
from shared.errors import StartupError
from shared.settings import RerankBackend, Settings


async def test_the_default_needs_nothing_else(models_dir: Path, tmp_path: Path) -> None:
    model = open_model(Settings(models_dir=models_dir, data_dir=tmp_path))
    assert isinstance(model, LateInteraction)
    assert model.info.calibration != "none"
    await model.close()


async def test_a_remote_model_need_not_be_in_the_store(tmp_path: Path) -> None:
    settings = Settings(
        models_dir=tmp_path,
        rerank_backend="remote",
        rerank_model="rerank-v3.5",
        rerank_remote_api="cohere",
        rerank_remote_url="https://api.example.com",
    )
    model = open_model(settings)
    assert isinstance(model, RemoteModel)
    assert (model.info.model, model.info.backend) == ("rerank-v3.5", "remote")
    await model.close()


@pytest.mark.parametrize(
    "backend", ["late-interaction", "cross-encoder", "sentence-transformers", "flag"]
)
def test_a_model_that_is_not_in_the_store_is_asked_for(
    tmp_path: Path, backend: RerankBackend
) -> None:
    with pytest.raises(StartupError, match="refdesk models pull"):
        open_model(Settings(models_dir=tmp_path, rerank_backend=backend))


@pytest.mark.parametrize("backend", ["sentence-transformers", "flag"])
def test_a_backend_without_its_package_says_what_to_install(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, backend: RerankBackend
) -> None:
    for name in ("flag", "sentence_transformers"):
        monkeypatch.delitem(sys.modules, f"services.rerank.models.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    with pytest.raises(StartupError, match=r"pip install -e '\.\[torch\]'"):
        open_model(Settings(models_dir=models_dir, rerank_backend=backend))
