"""Words of a text as the word index sees them, by the language of a corpus.

Text is first prepared here, then cut into words and reduced to stems by Tantivy; documents and
queries go the same way.

Languages written without spaces (Chinese, Japanese, Korean with its endings, Thai, Lao, Khmer,
Burmese) are indexed in every corpus by single characters and overlapping pairs of them, as Lucene's
`cjk` analyser does with `outputUnigrams`: no dictionary, no part of a word that can't be found, and
a query of one character finds. docs/concepts/languages.md has the comparison with word segmenters.
"""

import re
import unicodedata
from itertools import pairwise

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from shared.errors import ApiError

# Part of the word index's stamp: raise it whenever the same text would give other terms.
ANALYSER = "words-2"

_LONGEST_TERM = 128  # bytes; what is longer is no word that anyone searches for

MIXED = "mul"  # ISO 639-2's code for several languages: words as they are

# ISO 639-1 code to the name that the Snowball stemmer goes by.
STEMMERS = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nb": "norwegian",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
_WITHOUT_STOP_WORDS = frozenset({"ar", "el", "ro", "ta", "tr"})  # Tantivy brings no list of them

# Every ISO 639-1 code.
_CODES = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de
    dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia
    id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo
    lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl
    ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk
    tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """.split()  # noqa: SIM905 - a line for each code would be two hundred
)

# Languages with a dotless i, of which I is the capital, and İ that of i.
_DOTLESS = frozenset({"az", "tr"})
_DOTLESS_LETTERS = str.maketrans({"I": "\u0131", "İ": "i"})
# A soft hyphen stands within a word; İ in small letters would keep its dot as an accent of its own.
_LETTERS = str.maketrans({"\u00ad": None, "İ": "I"})

# Han, Hiragana, Katakana, Hangul, Thai, Lao, Burmese, Khmer: letters and their marks, no digits.
_UNSPACED = re.compile(
    "[\u3005-\u3007\u3041-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7a3\u1100-\u11ff\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3]+"
)

# What Tokenizer.simple cuts at the marks that many scripts of Asia write within a word. It takes
# twice as long, so the languages that need none of it (Europe's, Arabic) go without.
_WORD = r"[\p{Alphabetic}\p{N}][\p{Alphabetic}\p{N}\p{M}--[\u{FE00}-\u{FE0F}\p{Me}]]*"


def analyser(language: str) -> TextAnalyzer:
    """Words in small letters, accents folded; without stop words and stemmed where we can.

    What it is given must have gone through `prepare`. A language of ISO 639-1 without a stemmer,
    or "mul", has its words as they are. Raises ApiError 422 for any other code.
    """
    if language not in _CODES and language != MIXED:
        raise ApiError(
            422,
            "unknown_language",
            f"'{language[:80]}' is no two-letter code of ISO 639-1: words are stemmed for "
            f"{', '.join(STEMMERS)}, and compared as they are for any other code of ISO 639-1 and "
            f"for '{MIXED}', several languages",
            param="language",
        )
    name = STEMMERS.get(language)
    simple = name is not None and language != "ta"
    words = (
        TextAnalyzerBuilder(Tokenizer.simple() if simple else Tokenizer.regex(_WORD))
        .filter(Filter.remove_long(_LONGEST_TERM))
        .filter(Filter.lowercase())
    )
    if name is not None:
        if language not in _WITHOUT_STOP_WORDS:
            words = words.filter(Filter.stopword(name))
        words = words.filter(Filter.stemmer(name))
    # Last: the stop words and the stemmer's rules know the accents.
    return words.filter(Filter.ascii_fold()).build()


def prepare(text: str, language: str) -> str:
    """A text (a document's or a query) as the analyser is to have it.

    Unicode's compatibility forms are composed (NFKC: wide and ligature letters, accents written
    apart), and where no spaces are written, characters and pairs of them stand as words.
    """
    if language in _DOTLESS:
        text = text.translate(_DOTLESS_LETTERS)
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFKC", text).translate(_LETTERS)
    return _UNSPACED.sub(_characters_and_pairs, composed)


def terms(text: str, language: str, by: TextAnalyzer) -> list[str]:
    """The terms of a text in order, with repeats, as the analyser of that language has them."""
    found: list[str] = by.analyze(prepare(text, language))
    return found


def _characters_and_pairs(run: re.Match[str]) -> str:
    characters = run[0]
    pairs = map("".join, pairwise(characters))
    return f" {' '.join((*characters, *pairs))} "
