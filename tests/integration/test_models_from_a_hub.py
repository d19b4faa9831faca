"""Models from a hub: the client against a hub that speaks the protocol over real HTTP."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.modelstore.entry import ModelStoreError
from shared.modelstore.hub import HubSource
from shared.modelstore.store import ModelStore
from tests.modelhub import COMMIT, Hub, HubModel, running_hub
from tests.suite import REPOSITORY

WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# tiny\n",
    "config.json": b'{"hidden_size": 4}',
    "1_Pooling/config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickled",
    "onnx/model.onnx": b"another form of the weights",
    ".gitattributes": b"*.bin filter=lfs",
}
TAKEN = {"README.md", "config.json", "1_Pooling/config.json", "model.safetensors"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.models["org/tiny"] = HubModel(dict(FILES))
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def tiny(
    hub: Hub, *, model: str = "org/tiny", revision: str = "main", token: str | None = None
) -> HubSource:
    return HubSource(model, revision, model.split("/")[-1], url=hub.url, token=token)


def models_command(hub: Hub, store: ModelStore, *arguments: str) -> subprocess.Popen[str]:
    """`refdesk models …` as a process of its own."""
    env = {"REFDESK_HUB_URL": hub.url, "REFDESK_MODELS_DIR": str(store.folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "shared.cli.main", "models", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(store: ModelStore, source: HubSource) -> str:
    """Pull, expecting a refusal that leaves nothing in the store; gives its message."""
    with pytest.raises(ModelStoreError) as caught:
        store.pull(source)
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    return str(caught.value)


def test_takes_safetensors_and_what_describes_them_but_no_pickle(
    hub: Hub, store: ModelStore
) -> None:
    entry = store.pull(tiny(hub)).entry
    assert set(entry.files) == TAKEN
    assert entry.source == f"hub {hub.url}/org/tiny@{COMMIT}"
    assert entry.licence == "mit"
    assert entry.kind == "safetensors"
    for path in TAKEN:
        assert (entry.path / path).read_bytes() == FILES[path]
    assert {path.name for path in entry.path.iterdir()} == {
        "entry.json",
        *(path.split("/")[0] for path in TAKEN),
    }
    assert not [problem for found in store.verify() for problem in found.problems]


def test_a_second_pull_of_the_same_commit_downloads_nothing(hub: Hub, store: ModelStore) -> None:
    store.pull(tiny(hub))
    before = list(hub.downloads)
    again = store.pull(tiny(hub, revision=COMMIT))
    assert not again.fetched
    assert hub.downloads == before


def test_a_private_model_needs_the_token_that_is_set(hub: Hub, store: ModelStore) -> None:
    hub.models["org/tiny"].token = "hub-secret"
    assert "set REFDESK_HUB_TOKEN" in refused(store, tiny(hub))
    assert "set REFDESK_HUB_TOKEN" in refused(store, tiny(hub, token="wrong"))
    assert store.pull(tiny(hub, token="hub-secret")).fetched


def test_weights_with_another_sha256_than_stated_are_refused(hub: Hub, store: ModelStore) -> None:
    hub.models["org/tiny"].served["model.safetensors"] = WEIGHTS[::-1]
    assert "model.safetensors of org/tiny" in refused(store, tiny(hub))


def test_a_small_file_with_another_git_id_than_stated_is_refused(
    hub: Hub, store: ModelStore
) -> None:
    hub.models["org/tiny"].served["config.json"] = b'{"hidden_size": 5}'
    message = refused(store, tiny(hub))
    assert "config.json of org/tiny" in message
    assert "its hash is not the one the hub states" in message


def test_a_transfer_that_is_cut_once_is_taken_up_again(hub: Hub, store: ModelStore) -> None:
    large = WEIGHTS * 50  # the client keeps what it has in pieces of 10 MiB
    hub.models["org/tiny"].files["model.safetensors"] = large
    hub.hang_ups = 1
    entry = store.pull(tiny(hub)).entry
    assert (entry.path / "model.safetensors").read_bytes() == large
    assert hub.resumed == ["bytes=10485760-"]


def test_a_transfer_that_is_cut_for_good_leaves_nothing(hub: Hub, store: ModelStore) -> None:
    hub.hang_ups = 1
    hub.lasting = True
    assert "the hub answered 503" in refused(store, tiny(hub))


def test_a_model_that_is_not_there_is_said_to_be_missing_or_private(
    hub: Hub, store: ModelStore
) -> None:
    message = refused(store, tiny(hub, model="org/none"))
    assert message.startswith(f"there is no org/none at {hub.url}, or it is private")


def test_a_revision_that_is_not_there_is_named(hub: Hub, store: ModelStore) -> None:
    assert "has no revision 'v9'" in refused(store, tiny(hub, revision="v9"))


def test_a_gated_model_asks_to_accept_its_terms(hub: Hub, store: ModelStore) -> None:
    hub.models["org/tiny"].gated = True
    assert "accept its terms" in refused(store, tiny(hub))


def test_weights_that_are_only_pickled_are_refused(hub: Hub, store: ModelStore) -> None:
    hub.models["org/tiny"].files = {"config.json": b"{}", "pytorch_model.bin": b"pickled"}
    message = refused(store, tiny(hub))
    assert "only as pickle (pytorch_model.bin)" in message
    assert hub.downloads == []


def test_several_gguf_files_are_not_all_downloaded(hub: Hub, store: ModelStore) -> None:
    hub.models["org/tiny"].files = {"a.Q4.gguf": b"a", "a.Q8.gguf": b"b"}
    assert "has 2 .gguf files" in refused(store, tiny(hub))
    assert hub.downloads == []


def test_a_file_name_that_leads_out_of_the_folder_is_refused(hub: Hub, store: ModelStore) -> None:
    hub.models["org/tiny"].files["../../evil.json"] = b"{}"
    assert "'../../evil.json' is not a path inside" in refused(store, tiny(hub))
    assert hub.downloads == []


def test_a_model_larger_than_the_disk_is_refused_before_it_is_downloaded(
    hub: Hub, store: ModelStore
) -> None:
    hub.models["org/tiny"].sizes["model.safetensors"] = 10**18
    assert "are needed: free some space" in refused(store, tiny(hub))
    assert hub.downloads == []


def test_a_server_that_is_no_hub_is_recognised(hub: Hub, store: ModelStore) -> None:
    source = HubSource("org/tiny", "main", "tiny", url=f"{hub.url}/website", token=None)
    message = refused(store, source)
    assert f"{hub.url}/website answered about org/tiny what no model hub answers" in message
    assert "check REFDESK_HUB_URL" in message


def test_a_hub_that_does_not_answer_is_one_sentence(store: ModelStore) -> None:
    with running_hub() as hub:
        source = tiny(hub)
    message = refused(store, source)
    assert f"{hub.url} does not answer" in message
    assert "\n" not in message


def test_a_killed_pull_leaves_nothing_and_the_next_one_completes(
    hub: Hub, store: ModelStore
) -> None:
    hub.go_on.clear()
    process = models_command(hub, store, "pull", "org/tiny")
    with process:
        assert hub.halfway.wait(60)
        process.send_signal(signal.SIGKILL)
    assert store.revisions() == []
    assert (store.folder / ".staging").is_dir()

    hub.go_on.set()
    with models_command(hub, store, "pull", "org/tiny") as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "pulled" in output
    assert not (store.folder / ".staging").exists()
    assert (store.require("tiny").path / "model.safetensors").read_bytes() == WEIGHTS


def test_an_interrupted_pull_leaves_nothing(hub: Hub, store: ModelStore) -> None:
    hub.go_on.clear()
    with models_command(hub, store, "pull", "org/tiny") as process:
        assert hub.halfway.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [path.name for path in store.folder.iterdir()] == [".lock"]


def test_two_pulls_at_once_download_the_weights_once(hub: Hub, store: ModelStore) -> None:
    hub.go_on.clear()
    with models_command(hub, store, "pull", "org/tiny") as first:
        assert hub.halfway.wait(60)
        with models_command(hub, store, "pull", "org/tiny") as second:
            assert second.stderr is not None
            assert second.stderr.readline().startswith("waiting for another pull")
            hub.go_on.set()
            fetched, _ = first.communicate()
            found, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "pulled" in fetched
    assert "already there" in found
    assert hub.downloads.count("model.safetensors") == 1


def test_the_command_repairs_a_model_from_where_it_came_from(hub: Hub, store: ModelStore) -> None:
    entry = store.pull(tiny(hub)).entry
    (entry.path / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"\0")
    with models_command(hub, store, "verify") as process:
        output, errors = process.communicate()
    assert process.returncode == 1
    assert "model.safetensors is damaged" in output
    assert errors.splitlines()[-1] == (
        "error: 1 missing or damaged files: run `refdesk models pull tiny`"
    )
    with models_command(hub, store, "pull", "tiny") as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert not store.verify("tiny")[0].problems
