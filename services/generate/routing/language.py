"""The language of a question, by its script and its commonest words. Pure.

Good for a rule such as "German goes to this tier"; a question of few words may have none.
"""

import re

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),  # before Chinese: Japanese has its characters, too
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
)
# Words of grammar that few other languages of this list share.
_WORDS = {
    "en": "the of is are was were what which who how why does did when where and to in do for",
    "de": "der die das ist sind war waren was welche welcher welches wer wie warum wann wo und "
    "nicht ein eine von zu mit für auf den dem im",
    "fr": "le la les est sont était qui que quoi quel quelle comment pourquoi quand où et des du "
    "une dans pour avec",
    "es": "el los las es son era qué cuál quién cómo por cuándo dónde y una en del para con",
    "it": "il lo gli è sono era che quale chi come perché quando dove e una nel della per con di",
    "pt": "o os as é são era que qual quem como por quando onde e uma em do da para com",
    "nl": "de het een is zijn was waren wat welke wie hoe waarom wanneer waar en niet van op met",
}
_TABLE = {code: frozenset(words.split()) for code, words in _WORDS.items()}


def language(text: str) -> str:
    """The ISO 639-1 code, or "" where the words say nothing or two languages have as many."""
    for code, pattern in _SCRIPTS:
        if pattern.search(text):
            return code
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = sorted(
        ((sum(word in table for word in words), code) for code, table in _TABLE.items()),
        reverse=True,
    )
    (most, code), (second, _) = counts[:2]
    return code if most > second else ""
