"""Words as the index sees them, by language."""

import pytest

from services.retrieve.stores.analysis import MIXED, STEMMERS, analyser, prepare
from shared.errors import ApiError


def terms(text: str, language: str) -> list[str]:
    found: list[str] = analyser(language).analyze(prepare(text, language))
    return found


@pytest.mark.parametrize(
    ("language", "stored", "asked"),
    [
        ("en", "The studies were published", "publishing a study"),
        ("de", "Die Häuser der Straßen", "haus strasse"),
        ("fr", "Les économies régionales", "economie regionale"),
        ("es", "Las canciones cantadas", "cancion cantada"),
        ("ru", "Новые книги", "новая книга"),
        ("sv", "Flickorna i husen", "flicka hus"),
        ("nb", "Bøkene i husene", "bok hus"),
        ("ar", "المدرسون في المدارس", "مدرسون"),
        ("el", "ΛΌΓΟΣ των ανθρώπων", "λόγους άνθρωπος"),
        ("ro", "cărțile școlii", "carti"),
        ("ta", "புத்தகங்கள்", "புத்தகம்"),
        ("tr", "KITAPLARI evlerde", "kitap ev"),
        ("tr", "İstanbul", "istanbul"),
    ],
)
def test_a_word_is_found_in_its_other_forms(language: str, stored: str, asked: str) -> None:
    assert set(terms(asked, language)) <= set(terms(stored, language))


@pytest.mark.parametrize("language", [*STEMMERS, "pl", "uk", "zh", "hi", MIXED])
def test_every_language_keeps_content_and_folds_case(language: str) -> None:
    assert terms("Zebra-3", language) == terms("ZEBRA 3", language)
    assert len(terms("Zebra-3", language)) == 2


@pytest.mark.parametrize("language", ["pl", "cs", MIXED])
def test_a_language_without_a_stemmer_has_its_words_as_they_are(language: str) -> None:
    assert terms("The Książki i ŻÓŁW", language) == ["the", "ksiazki", "i", "zolw"]


def test_marks_within_a_word_do_not_cut_it() -> None:
    assert len(terms("हिन्दी किताबें", "hi")) == 2
    assert len(terms("தமிழ் மொழியில்", "ta")) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cafe\u0301", "café"),
        ("\ufb01nance", "finance"),
        ("data\u00adbase", "database"),
        ("İzmir", "izmir"),
        ("\uff21\uff22\uff23", "abc"),
    ],
)
def test_forms_of_the_same_letters_are_the_same_word(one: str, other: str) -> None:
    assert terms(one, "en") == terms(other, "en") != []


def test_text_without_spaces_is_characters_and_pairs() -> None:
    assert terms("in 図書館で", "ja") == ["in", "図", "書", "館", "で", "図書", "書館", "館で"]


def test_stop_words_and_monsters_are_no_terms() -> None:
    assert terms("to be or not to be, the " + "x" * 200, "en") == []


@pytest.mark.parametrize("language", ["xx", "EN", "english", "", "cz", "jp", "x" * 1000])
def test_an_unknown_language_is_refused_with_the_known_ones(language: str) -> None:
    with pytest.raises(ApiError, match="da, de, el, en") as failure:
        analyser(language)
    assert (failure.value.status, failure.value.param) == (422, "language")
    assert len(failure.value.message) < 500
