"""The model store, filled from folders: real files, no network."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.modelstore.entry import ModelMissingError, ModelStoreError
from shared.modelstore.folder import FolderSource
from shared.modelstore.resolve import Hub, resolve
from shared.modelstore.sources import select
from shared.modelstore.store import ModelStore
from tests.fulldisk import files_no_longer_than

WEIGHTS = bytes(range(256)) * 2000
PUBLIC = Hub("http://127.0.0.1:9", token=None)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model in it."""
    folder = tmp_path / "tiny"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def test_a_model_that_is_not_there_names_the_command_that_brings_it(store: ModelStore) -> None:
    with pytest.raises(ModelMissingError, match="run `refdesk models pull default`"):
        store.require("all-MiniLM-L6-v2")
    with pytest.raises(ModelMissingError, match="run `refdesk models pull FOLDER` or"):
        store.require("bge-m3")
    with pytest.raises(ModelMissingError, match="no model is in the store"):
        store.verify()


def test_a_folder_is_copied_with_its_licence_and_the_hash_of_each_file(
    store: ModelStore, model: Path
) -> None:
    pulled = store.pull(FolderSource(model, "tiny"))
    assert pulled.fetched
    entry = store.require("tiny")
    assert entry == pulled.entry
    assert entry.source == f"folder {model}"
    assert entry.licence == "apache-2.0"
    assert entry.bytes == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    assert (entry.path / "1_Pooling" / "config.json").read_text() == "{}"
    written = json.loads((entry.path / "entry.json").read_text())
    assert written["files"]["model.safetensors"] == {
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "bytes": len(WEIGHTS),
    }
    assert (store.folder / "tiny" / "current").read_text().strip() == entry.revision


def test_a_second_pull_does_nothing(store: ModelStore, model: Path) -> None:
    entry = store.pull(FolderSource(model, "tiny")).entry
    before = (entry.path / "model.safetensors").stat()
    again = store.pull(FolderSource(model, "tiny"))
    assert not again.fetched
    assert again.entry == entry
    assert (entry.path / "model.safetensors").stat() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_with_a_part_that_can_not_be_read_is_refused(
    store: ModelStore, model: Path
) -> None:
    (model / "1_Pooling").chmod(0)
    with pytest.raises(ModelStoreError, match="1_Pooling"):
        store.pull(FolderSource(model, "tiny"))


def test_a_changed_folder_becomes_a_revision_beside_the_old_one(
    store: ModelStore, model: Path
) -> None:
    old = store.pull(FolderSource(model, "tiny")).entry
    (model / "config.json").write_text('{"changed": true}')
    new = store.pull(FolderSource(model, "tiny")).entry
    assert new.revision != old.revision
    assert [(found.revision, found.current) for found in store.revisions("tiny")] == [
        (new.revision, True),
        (old.revision, False),
    ]


def test_going_back_to_an_older_revision_copies_nothing(store: ModelStore, model: Path) -> None:
    old = store.pull(FolderSource(model, "tiny")).entry
    (model / "config.json").write_text('{"changed": true}')
    store.pull(FolderSource(model, "tiny"))
    (model / "config.json").write_text("{}")
    assert not store.pull(FolderSource(model, "tiny")).fetched
    assert store.require("tiny").revision == old.revision


def test_linked_files_are_followed_and_hidden_files_left_out(
    store: ModelStore, model: Path, tmp_path: Path
) -> None:
    (model / "model.safetensors").rename(tmp_path / "blob")
    (model / "model.safetensors").symlink_to(tmp_path / "blob")
    (model / ".cache").mkdir()
    (model / ".cache" / "state.json").write_text("{}")
    entry = store.pull(FolderSource(model, "tiny")).entry
    assert not (entry.path / "model.safetensors").is_symlink()
    assert (entry.path / "model.safetensors").read_bytes() == WEIGHTS
    assert not (entry.path / ".cache").exists()


def test_a_changed_byte_is_found_by_verify_and_repaired_by_pull(
    store: ModelStore, model: Path
) -> None:
    entry = store.pull(FolderSource(model, "tiny")).entry
    (entry.path / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"\0")
    [found] = store.verify("tiny")
    assert [str(problem) for problem in found.problems] == [
        f"tiny {entry.revision}: model.safetensors is damaged (its SHA-256 is not the one recorded)"
    ]
    assert store.pull(FolderSource(model, "tiny")).fetched
    assert not store.verify("tiny")[0].problems


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda path: path.unlink(), "model.safetensors is missing"),
        (lambda path: path.write_bytes(b"short"), "model.safetensors is damaged (5 bytes instead"),
    ],
)
def test_a_missing_or_cut_file_is_refused_and_repaired_by_pull(
    store: ModelStore, model: Path, harm: Callable[[Path], object], fault: str
) -> None:
    entry = store.pull(FolderSource(model, "tiny")).entry
    harm(entry.path / "model.safetensors")
    with pytest.raises(ModelStoreError) as caught:
        store.require("tiny")
    assert fault in str(caught.value)
    assert "run `refdesk models pull tiny`" in str(caught.value)
    assert store.pull(FolderSource(model, "tiny")).fetched
    assert store.require("tiny") == entry


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ('{"name": "tiny"}', "is damaged"),
        (None, "is missing"),
    ],
)
def test_a_bad_entry_file_is_a_problem_that_pull_repairs(
    store: ModelStore, model: Path, text: str | None, fault: str
) -> None:
    entry = store.pull(FolderSource(model, "tiny")).entry
    if text is None:
        (entry.path / "entry.json").unlink()
    else:
        (entry.path / "entry.json").write_text(text)
    with pytest.raises(ModelStoreError, match=f"entry.json {fault}"):
        store.require("tiny")
    assert store.pull(FolderSource(model, "tiny")).fetched
    assert store.require("tiny") == entry


def test_an_entry_whose_hashes_were_edited_with_the_weights_is_found(
    store: ModelStore, model: Path
) -> None:
    entry = store.pull(FolderSource(model, "tiny")).entry
    (model / "model.safetensors").write_bytes(WEIGHTS[::-1])
    forged = ModelStore(store.folder.parent / "other").pull(FolderSource(model, "tiny")).entry
    for file in ("model.safetensors", "entry.json"):
        (entry.path / file).write_bytes((forged.path / file).read_bytes())
    [found] = store.verify("tiny")
    assert [problem.fault for problem in found.problems] == [
        "does not belong to this model and revision"
    ]


def test_a_lost_pointer_is_restored_without_copying(store: ModelStore, model: Path) -> None:
    entry = store.pull(FolderSource(model, "tiny")).entry
    (store.folder / "tiny" / "current").unlink()
    with pytest.raises(ModelMissingError):
        store.require("tiny")
    assert not store.pull(FolderSource(model, "tiny")).fetched
    assert store.require("tiny") == entry


def test_what_a_killed_pull_left_is_removed_by_the_next(store: ModelStore, model: Path) -> None:
    (store.folder / ".staging" / "half").mkdir(parents=True)
    (store.folder / ".staging" / "half" / "model.safetensors").write_bytes(b"half")
    (store.folder / "tiny").mkdir()
    (store.folder / "tiny" / ".current.abc").write_text("1234")
    store.pull(FolderSource(model, "tiny"))
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock", "tiny"]
    assert len(list((store.folder / "tiny").iterdir())) == 2


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(
    store: ModelStore, model: Path
) -> None:
    with files_no_longer_than(100_000), pytest.raises(ModelStoreError) as caught:
        store.pull(FolderSource(model, "tiny"))
    assert str(caught.value).startswith(f"there is no room for tiny in {store.folder}")
    assert "\n" not in str(caught.value)
    assert [path.name for path in store.folder.iterdir()] == [".lock"]


def test_a_store_that_can_not_be_made_is_one_sentence(model: Path) -> None:
    store = ModelStore(model / "config.json" / "models")
    with pytest.raises(ModelStoreError, match="tiny could not be pulled: Not a directory"):
        store.pull(FolderSource(model, "tiny"))


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "*", "n" * 129])
def test_a_name_that_can_not_be_a_folder_is_refused(
    store: ModelStore, model: Path, name: str
) -> None:
    for use in (store.require, lambda name: store.pull(FolderSource(model, name))):
        with pytest.raises(ModelStoreError, match="cannot be the name of a model"):
            use(name)


def test_weights_in_one_format_are_selected_and_never_pickles() -> None:
    described = ["config.json", "tokenizer.model", "LICENSE", "vocab.txt"]
    other = ["pytorch_model.bin", "tf_model.h5", "openvino/model.xml", "train.py", "entry.json"]
    onnx = ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_quantized.onnx"]
    every = [*described, *other, *onnx, "model.safetensors"]
    assert select(every, "it") == sorted([*described, "model.safetensors"])
    every.remove("model.safetensors")
    assert select(every, "it") == sorted([*described, "onnx/model.onnx", "onnx/model.onnx_data"])
    assert select(["model_q4.onnx", "config.json"], "it") == ["config.json", "model_q4.onnx"]


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["config.json", "pytorch_model.bin"], "only as pickle \\(pytorch_model.bin\\)"),
        (["config.json"], "has no weights"),
        ([], "has no weights"),
        (["/etc/x.json", "model.gguf"], "is not a path inside"),
        (["a/../../x.json", "model.gguf"], "is not a path inside"),
        (["a\\x.json", "model.gguf"], "is not a path inside"),
        (["a\nb.json", "model.gguf"], "is not a path inside"),
    ],
)
def test_a_model_without_safe_weights_is_refused(paths: list[str], reason: str) -> None:
    with pytest.raises(ModelStoreError, match=reason):
        select(paths, "it")


def test_what_is_asked_for_is_found_by_name_folder_or_hub_id(
    store: ModelStore, model: Path
) -> None:
    def names(wanted: str, name: str | None = None) -> list[tuple[str, str]]:
        sources = resolve(wanted, name=name, stored={}, hub=PUBLIC)
        return [(type(source).__name__, source.name) for source in sources]

    assert names("default") == [
        ("PackageSource", "all-MiniLM-L6-v2"),
        ("PackageSource", "smollm2-135m-instruct"),
    ]
    assert names("all-MiniLM-L6-v2") == [("PackageSource", "all-MiniLM-L6-v2")]
    assert names(str(model)) == [("FolderSource", "tiny")]
    assert names(str(model), "other") == [("FolderSource", "other")]
    assert names("BAAI/bge-m3@v1") == [("HubSource", "bge-m3")]


@pytest.mark.parametrize("wanted", ["nothing", "./no/such/folder", "a/b/c", "/no/such", "a/b@"])
def test_what_is_nowhere_is_refused_with_what_can_be_asked_for(wanted: str) -> None:
    with pytest.raises(ModelStoreError, match=r"no model that refdesk knows .*no hub id"):
        resolve(wanted, name=None, stored={}, hub=PUBLIC)


def test_a_stored_model_is_fetched_again_from_where_it_came_from(
    store: ModelStore, model: Path
) -> None:
    entry = store.pull(FolderSource(model, "mine")).entry
    [source] = resolve("mine", name=None, stored={"mine": entry}, hub=PUBLIC)
    assert isinstance(source, FolderSource)
    assert (source.folder, source.name) == (model, "mine")
    model.rename(model.with_name("moved"))
    with pytest.raises(ModelStoreError, match="not there any more"):
        resolve("mine", name=None, stored={"mine": entry}, hub=PUBLIC)
