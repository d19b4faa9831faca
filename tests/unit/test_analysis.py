"""Words as the index sees them, by language."""

import pytest

from services.retrieve.stores.local.analysis import LANGUAGES, analyser
from shared.errors import ApiError


@pytest.mark.parametrize(
    ("language", "stored", "asked"),
    [
        ("en", "The studies were published", "publishing a study"),
        ("de", "Die Häuser der Straßen", "haus strasse"),
        ("fr", "Les économies régionales", "economie regionale"),
        ("es", "Las canciones cantadas", "cancion cantada"),
        ("ru", "Новые книги", "новая книга"),
        ("sv", "Flickorna i husen", "flicka hus"),
    ],
)
def test_a_word_is_found_in_its_other_forms(language: str, stored: str, asked: str) -> None:
    analyse = analyser(language).analyze
    assert set(analyse(asked)) <= set(analyse(stored))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_keeps_content_and_folds_case(language: str) -> None:
    analyse = analyser(language).analyze
    assert analyse("Zebra-3") == analyse("ZEBRA 3")
    assert len(analyse("Zebra-3")) == 2


def test_stop_words_and_monsters_are_no_terms() -> None:
    assert analyser("en").analyze("to be or not to be, the " + "x" * 200) == []


@pytest.mark.parametrize("language", ["xx", "EN", "english", "", "zh"])
def test_an_unknown_language_is_refused_with_the_known_ones(language: str) -> None:
    with pytest.raises(ApiError, match="da, de, en") as failure:
        analyser(language)
    assert (failure.value.status, failure.value.param) == (422, "language")
