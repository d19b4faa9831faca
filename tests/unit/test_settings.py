"""Settings come from the environment alone, and a wrong one is named."""

from pathlib import Path

import pytest

from shared.errors import StartupError
from shared.settings import Settings, load_settings


def test_a_service_is_reached_on_loopback_unless_its_url_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REFDESK_EMBED_PORT", "9101")
    monkeypatch.setenv("REFDESK_RERANK_URL", "http://curator:80/")
    settings = Settings()
    assert settings.url("embed") == "http://127.0.0.1:9101"
    assert settings.url("rerank") == "http://curator:80"


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_EMBED_PORT", "many")
    with pytest.raises(StartupError, match="REFDESK_EMBED_PORT"):
        load_settings()


def test_default_corpora_are_a_comma_separated_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_DEFAULT_CORPORA", "handbook, faq,")
    assert Settings().default_corpora == ["handbook", "faq"]


def test_a_home_in_a_path_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_DATA_DIR", "~/somewhere")
    assert Settings().data_dir == Path.home() / "somewhere"


@pytest.mark.parametrize("name", ["REFDESK_DATA_DIR", "REFDESK_MODELS_DIR"])
def test_a_home_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "~nobody-of-that-name/data")
    with pytest.raises(StartupError, match="~nobody-of-that-name/data"):
        load_settings()


@pytest.mark.parametrize("key", ["secret\n", "secret\r", "two secrets", "secreté", "secret\x07"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("REFDESK_SERVICE_KEY", key)
    with pytest.raises(StartupError, match="REFDESK_SERVICE_KEY: a key is") as told:
        load_settings()
    assert "secret" not in str(told.value)


def test_an_empty_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_API_KEY", "")
    assert load_settings().api_key is None


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_API_KEY", "very-secret")
    assert "very-secret" not in repr(Settings())


def test_every_setting_is_described_and_listed_in_the_handbook() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"`REFDESK_{name.upper()}`" in page, name


def test_the_keys_of_models_are_pairs_that_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_MODEL_KEYS", "small=k=1, strong = k2,")
    keys = load_settings().model_keys
    assert {name: key.get_secret_value() for name, key in keys.items() if key} == {
        "small": "k=1",
        "strong": "k2",
    }
    assert "k2" not in repr(load_settings())
    monkeypatch.setenv("REFDESK_MODEL_KEYS", "very-secret")
    with pytest.raises(StartupError, match="REFDESK_MODEL_KEYS: each must be NAME=KEY") as told:
        load_settings()
    assert "very-secret" not in str(told.value)
