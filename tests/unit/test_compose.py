"""compose.yaml and the Dockerfile against the ports and settings in code."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import SERVICES, Settings
from tests.suite import REPOSITORY

COMPOSE = REPOSITORY / "compose.yaml"
DOCKERFILE = REPOSITORY / "services" / "Dockerfile"
VARIABLE = re.compile(r"REFDESK_(\w+)")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """Each setting's default, whatever this machine's environment says."""
    return {name: field.default for name, field in Settings.model_fields.items()}


@pytest.fixture(scope="module")
def dockerfile() -> list[list[str]]:
    """The Dockerfile's instructions, each as its words."""
    joined = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", [COMPOSE, DOCKERFILE], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path, defaults: dict[str, Any]) -> None:
    used = {name.lower() for name in VARIABLE.findall(path.read_text())}
    assert used
    assert used <= defaults.keys()


def test_every_service_runs_with_its_own_port_on_loopback_only(
    compose: dict[str, Any], defaults: dict[str, Any]
) -> None:
    for name in SERVICES:
        service = compose["services"][name]
        port = defaults[f"{name}_port"]
        assert service["command"] == [name]
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert f"127.0.0.1:{port}/ready" in service["healthcheck"]["test"][-1]
        assert service["environment"][f"REFDESK_{name.upper()}_URL"] == f"http://{name}:{port}"
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_service_has_the_keys_that_listening_beyond_loopback_needs(
    compose: dict[str, Any],
) -> None:
    for name in SERVICES:
        service = compose["services"][name]
        assert service["secrets"] == ["keys"]
        assert service["environment"]["REFDESK_KEYS_FILE"] == "/run/secrets/keys"
    assert compose["secrets"]["keys"]["file"] == "${REFDESK_KEYS_FILE:-./keys.json}"


def test_settings_given_to_containers_are_accepted(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SERVICES:
        for variable, value in compose["services"][name]["environment"].items():
            if value is not None:
                # A value of the shell's: ${NAME:?what to do where there is none}
                monkeypatch.setenv(variable, re.sub(r"\$\{.*\}", "rd-key", value))
        settings = Settings()
        assert settings.url("retrieve") == "http://retrieve:8003"
        assert settings.keys_file == Path("/run/secrets/keys")


def test_models_come_first_and_only_their_service_may_write_them(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [*services["models"]["entrypoint"], *services["models"]["command"]] == [
        *("refdesk", "models", "pull", "default")
    ]
    for name in ("embed", "rerank", "generate"):
        assert "models:/models:ro" in services[name]["volumes"]
        assert services[name]["depends_on"]["models"] == {
            "condition": "service_completed_successfully"
        }
    assert services["models"]["volumes"] == ["models:/models"]


def test_volumes_are_declared_and_mounted_where_the_image_expects_data(
    compose: dict[str, Any], dockerfile: list[list[str]]
) -> None:
    image = " ".join(word for words in dockerfile for word in words)
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            volume, target = mount.split(":")[:2]
            assert volume in compose["volumes"]
            # A named volume takes over the owner of the image's folder: it has to be there.
            assert service.get("image") != "refdesk" or f" {target} " in image
    settings = Settings(data_dir=Path("/data"))
    assert str(settings.built_dir) == "/data/built"
    # The catalogue is beside the corpora, so that retrieve has all of it on its volume.
    assert compose["services"]["retrieve"]["volumes"] == ["data:/data"]
    assert {"REFDESK_DATA_DIR=/data", "REFDESK_MODELS_DIR=/models"} <= set(image.split())


def test_what_is_past_one_machine_starts_only_in_its_profile(compose: dict[str, Any]) -> None:
    cluster = ["qdrant", "qdrant-2", "qdrant-3"]
    services = compose["services"]
    beyond = [name for name in services if "profiles" in services[name]]
    assert beyond == [*cluster, "postgres", "redis"]
    assert all(services[name]["profiles"] == ["qdrant"] for name in beyond)
    assert [name for name in services if name not in beyond] == ["models", *SERVICES]
    assert not any("ports" in services[name] for name in beyond)


def test_each_node_of_the_cluster_has_its_own_address_and_volume(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("qdrant", "qdrant-2", "qdrant-3"):
        node = services[name]
        assert node["command"][-2:] == ["--uri", f"http://{name}:6335"]
        assert node["volumes"] == [f"{name}:/qdrant/storage"]
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        others = node["command"][1:-2]
        assert others == ([] if name == "qdrant" else ["--bootstrap", "http://qdrant:6335"])


def test_what_the_dockerfile_copies_exists_and_is_sent_to_the_builder(
    dockerfile: list[list[str]],
) -> None:
    copies = [words[1:-1] for words in dockerfile if words[0] == "COPY"]
    sources = {word for words in copies if not words[0].startswith("--") for word in words}
    assert {"pyproject.toml", "shared", "services"} <= sources
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignore
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= sources


def test_the_image_is_slim_runs_as_a_user_and_has_no_torch(dockerfile: list[list[str]]) -> None:
    words = {word for instruction in dockerfile for word in instruction}
    bases = [instruction[1] for instruction in dockerfile if instruction[0] == "FROM"]
    assert set(bases) == {"python:3.11-slim"}
    assert ["USER", "refdesk"] in dockerfile
    assert not any("torch" in word for word in words)
    exposed = next(instruction[1:] for instruction in dockerfile if instruction[0] == "EXPOSE")
    ports = [str(Settings.model_fields[f"{name}_port"].default) for name in SERVICES]
    assert exposed == ports


@pytest.mark.parametrize("argument", ["nothing", "embed; true", "../embed"])
def test_the_image_refuses_what_is_no_service(argument: str) -> None:
    result = subprocess.run([*_entrypoint(), argument], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: '{argument}' is no service")


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_runs_the_service_that_its_argument_names(service: str, tmp_path: Path) -> None:
    # A program named python that shows what it is started with.
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    result = subprocess.run(
        [*_entrypoint(), service],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"-m services.{service}\n"
    assert (REPOSITORY / "services" / service / "__main__.py").is_file()


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("the command `docker compose` is not on this machine")
    (tmp_path / "keys.json").write_text('{"keys": []}')
    result = subprocess.run(
        [docker, "compose", "--file", str(COMPOSE), "--profile", "qdrant", "config", "--quiet"],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "REFDESK_SERVICE_KEY": "a-key",
            "REFDESK_KEYS_FILE": str(tmp_path / "keys.json"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def _entrypoint() -> list[str]:
    """The image's entry point, as the list it is in JSON."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    words = yaml.safe_load(found[1])  # JSON is YAML
    assert isinstance(words, list)
    return words
