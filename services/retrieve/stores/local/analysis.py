"""Words of a text as the word index sees them, by the language of a corpus."""

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from shared.errors import ApiError

# Part of the word index's stamp: raise it whenever the same text would give other terms.
ANALYSER = "words-1"

_LONGEST_TERM = 128  # bytes; what is longer is no word that anyone searches for

# ISO 639-1 code to the name that both the Snowball stemmer and the stop word list go by.
LANGUAGES = {
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
}


def analyser(language: str) -> TextAnalyzer:
    """Words in small letters, without stop words, stemmed, accents folded.

    Raises ApiError 422 for a language without a stemmer and stop words.
    """
    name = LANGUAGES.get(language)
    if name is None:
        raise ApiError(
            422,
            "unknown_language",
            f"there is no analyser for language '{language}'; there is one for "
            f"{', '.join(LANGUAGES)}",
            param="language",
        )
    return (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(_LONGEST_TERM))
        .filter(Filter.lowercase())
        .filter(Filter.stopword(name))
        .filter(Filter.stemmer(name))
        # Last: the stop words and the stemmer's rules know the accents.
        .filter(Filter.ascii_fold())
        .build()
    )
