"""What a text says, as values that can be compared: terms, numbers, names, quotes, negation.

Everything here is pure. Words are stemmed by the analyser of the word index (Snowball English), so
a question's words meet a passage's words here as they met in the search.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import tantivy

_STEMMER = (
    tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    .filter(tantivy.Filter.lowercase())
    .filter(tantivy.Filter.stemmer("english"))
    .build()
)

# Words that carry structure, not content. Interrogatives are among them: they are in no answer.
_STOP = """
    a about again all also although am an and any are aren as at be because been being both but
    by can could couldn did didn do does doesn doing don done each either for from further get
    gets give gives got had has hasn have having he her here hers him his how however i if in
    into is isn it its itself just ll made make makes many may me might more most much must my
    of on one ones or other our out own per re s same shall she should so some such t than that
    the their them then there therefore these they this those through thus to too up upon us
    use used uses using ve very was wasn we were weren what when where whether which while who
    whom whose why will with would you your
"""
STOP_WORDS = frozenset(_STOP.split())
# Who or what they mean stands in the sentence before.
_POINTING = "it its he his she her they their this these those such"
PRONOUNS = frozenset(_POINTING.split())
_TO_NINETEEN = """zero one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ONES = _TO_NINETEEN.split()[1:10]
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_TO_NINETEEN.split())}
_NUMBER_WORDS |= {word: f"{value}0" for value, word in enumerate(_TENS.split(), start=2)}
_NUMBER_WORDS |= {
    f"{ten}-{one}": str(10 * tens + ones)
    for tens, ten in enumerate(_TENS.split(), start=2)
    for ones, one in enumerate(_ONES, start=1)
}
_NUMBER_WORDS |= {"hundred": "100", "thousand": "1000", "million": "1000000"}
_NUMBER_WORDS |= {"billion": "1000000000", "trillion": "1000000000000"}
# Signs of currency as words.
SYMBOLS = {"$": "dollar", "\u20ac": "euro", "\u00a3": "pound", "\u00a5": "yen"}
# Words that turn a statement round. Verbs that do ("refuses") are content words: support checks
# those, and _OPPOSITES.
_NEGATING = """not no never none nobody nothing nowhere neither nor without cannot cant dont doesnt
    didnt isnt arent wasnt werent wont wouldnt shouldnt couldnt hasnt havent hadnt unable"""
_NEGATIONS = frozenset(_NEGATING.split())
_OPPOSITES = (
    "increase/decrease increases/decreases increased/decreased more/less most/least more/fewer "
    "higher/lower highest/lowest higher/smaller larger/smaller largest/smallest maximum/minimum "
    "rise/fall rose/fell before/after first/last above/below over/under always/never all/none "
    "allow/forbid allows/forbids allowed/forbidden allow/refuse allows/refuses allowed/refused "
    "accept/refuse accepts/refuses accepted/refused permit/refuse permits/refuses "
    "permitted/refused permit/forbid permits/forbids permitted/forbidden grant/deny "
    "grants/denies granted/denied confirm/deny confirms/denies confirmed/denied "
    "enable/disable enables/disables "
    "enabled/disabled true/false accept/reject accepts/rejects accepted/rejected "
    "succeed/fail succeeds/fails succeeded/failed win/lose won/lost open/close opens/closes "
    "opened/closed start/stop starts/stops started/stopped begin/end began/ended "
    "required/optional north/south northern/southern east/west eastern/western left/right "
    "earlier/later early/late older/younger oldest/youngest old/new internal/external "
    "public/private add/remove adds/removes added/removed on/off inside/outside with/without "
    "faster/slower fastest/slowest fast/slow better/worse best/worst positive/negative "
    "buy/sell bought/sold import/export imports/exports same/different longer/shorter "
    "longest/shortest gain/loss male/female legal/illegal support/oppose supports/opposes "
    "supported/opposed able/unable possible/impossible"
)
# Of another force, no opposites: a question may well ask for "some" of what a source has all of.
_FORCES = """must/may must/can must/should all/some every/some each/some always/sometimes
    always/often"""
Pairs = Mapping[str, frozenset[str]]


def _both_ways(pairs: str) -> Pairs:
    found: dict[str, frozenset[str]] = {}
    for pair in pairs.split():
        one, other = pair.split("/")
        found[one] = found.get(one, frozenset()) | {other}
        found[other] = found.get(other, frozenset()) | {one}
    return found


OPPOSITES = _both_ways(_OPPOSITES)
FORCES = _both_ways(_FORCES)

_WORD = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)|[^\W_]+(?:['\u2019][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?\d+(?:[.,:/-]\d+)*")
_SPELT = re.compile(rf"[^\W\d_]+(?:-(?:{'|'.join(_ONES)})\b)?", re.IGNORECASE)
_FOLLOWING = re.compile(r"[\s-]?([^\W\d_]+(?:['\u2019][^\W_]+)*)")
_QUOTE = re.compile(r'"([^"\n]{3,400})"|\u201c([^\u201d\n]{3,400})\u201d')
_MARKER = re.compile(r"\s?\[\d{1,3}(?:\s*[,;]\s*\d{1,3})*\]")


def words(text: str) -> list[str]:
    """The words of a text as written, in order; an apostrophe inside is part of the word.

    So are the commas of a long number: ``1,204`` is one word.
    """
    return _WORD.findall(text)


@lru_cache(maxsize=256)  # a passage is read again for each claim
def one_line(text: str) -> str:
    """The text in lower case and one line, quotation marks straight: for "word for word"."""
    straight = text.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
    return " ".join(straight.lower().split())


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of one lower-case word: ``running`` -> ``run``; a possessive 's is left out."""
    bare = word.replace("\u2019", "'").removesuffix("'s").replace("'", "").replace(",", "")
    return "".join(_STEMMER.analyze(bare)) or bare


def terms(text: str) -> list[str]:
    """The stems of a text's content words, in order, repeats kept."""
    found = (word.lower() for word in words(text))
    return [stem(word) for word in found if word not in STOP_WORDS]


def weights(units: Iterable[Iterable[str]]) -> Mapping[str, float]:
    """How telling each term is among these units (sentences): ``ln(1 + N / df)``.

    A term that no unit has weighs the most: read it with `weight_of`.
    """
    frequency: dict[str, int] = {}
    count = 0
    for unit in units:
        count += 1
        for term in set(unit):
            frequency[term] = frequency.get(term, 0) + 1
    table = {term: math.log(1 + count / df) for term, df in frequency.items()}
    table[""] = math.log(1 + max(count, 1) / 0.5)
    return table


def weight_of(term: str, table: Mapping[str, float]) -> float:
    """The weight of a term in a table of `weights`; an unseen term counts as seen half a time."""
    return table.get(term, table[""])


def weigh(found: Iterable[str], table: Mapping[str, float]) -> float:
    """The weight of some distinct terms together."""
    return sum(weight_of(term, table) for term in found)


def share(wanted: frozenset[str], found: Iterable[str], table: Mapping[str, float]) -> float:
    """Weighted share, 0..1, of the wanted terms that were found; 1.0 if none is wanted."""
    total = weigh(wanted, table)
    return weigh(wanted.intersection(found), table) / total if total else 1.0


def numbers(text: str) -> list[str]:
    """The numbers of a text in order, written one way: ``1,200.50`` -> ``1200.5``, two -> ``2``.

    A date or a time written in digits comes apart into its numbers, and so does "two million".
    "One" alone is not counted: it is an article as often as a number.
    """
    return [value for _, value in _numbers(text)]


def _numbers(text: str) -> list[tuple[int, str]]:
    """Each number with the place where it ends."""
    found: list[tuple[int, int, str]] = []
    for match in _NUMBER.finditer(text):
        plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", match.group())
        sign = "-" if plain[0] in "-\u2212" else ""
        first, *rest = re.split(r"[,:/-]", plain.lstrip("+-\u2212"))
        parts = [sign + _plain_number(first), *map(_plain_number, rest)]
        found += [(match.start(), match.end(), part) for part in parts]
    for word in _SPELT.finditer(text):
        spelt = word.group().lower()
        value = _NUMBER_WORDS.get(spelt) or _NUMBER_WORDS.get(spelt.rpartition("-")[2])
        if value is not None and value != "1":
            found.append((word.start(), word.end(), value))
    return [(end, value) for _, end, value in sorted(found, key=lambda one: one[0])]


def amounts(text: str, reach: int) -> list[tuple[str, list[str]]]:
    """Each number with the stems of the content words that follow: what it counts.

    At most `reach` words; none where the next word carries no content or does not follow directly.
    text: as `checks.plain` writes it, which has words in the place of ``$`` and ``%``.
    """
    found = []
    for end, value in _numbers(text):
        next_word = _FOLLOWING.match(text, end)
        counts = next_word is not None and next_word[1].lower() not in STOP_WORDS
        found.append((value, terms(text[end:])[:reach] if counts else []))
    return found


def _plain_number(digits: str) -> str:
    whole, dot, rest = digits.partition(".")
    whole = whole.lstrip("0") or "0"
    rest = rest.rstrip("0")
    return f"{whole}{dot}{rest}" if rest else whole


def names(sentence: str) -> list[str]:
    """The capitalised words of a sentence in order, lower-cased, possessive 's left out.

    The first word counts, too, unless it is a stop word: whether a name or only a beginning, it
    must come from somewhere. One letter alone is no name.
    """
    return [
        bare
        for word in words(sentence)
        if word[0].isupper()
        and len(bare := word.replace("\u2019", "'").removesuffix("'s").lower()) > 1
        and bare not in STOP_WORDS
    ]


def quotes(text: str) -> list[str]:
    """The strings that stand in double quotation marks."""
    return [straight or curly for straight, curly in _QUOTE.findall(text)]


def is_negation(word: str) -> bool:
    """Whether a word alone negates."""
    plain = word.lower().replace("\u2019", "'")
    return plain.endswith("n't") or plain.replace("'", "") in _NEGATIONS


def negations(text: str) -> int:
    """How many words negate: not, n't, never, without, …"""
    return sum(map(is_negation, words(text)))


def negated(text: str, reach: int) -> list[list[str]]:
    """For each word that negates, the stems of up to `reach` content words behind it."""
    found = words(text)
    return [
        terms(" ".join(word for word in found[place + 1 :] if not is_negation(word)))[:reach]
        for place, one in enumerate(found)
        if is_negation(one)
    ]


def opposites(claim: str, source: str, pairs: Pairs = OPPOSITES) -> list[tuple[str, str]]:
    """Pairs (word of the claim, its opposite in the source) where the source lacks the former."""
    said = {word.lower() for word in words(claim)}
    read = {word.lower() for word in words(source)}
    return [
        (word, other)
        for word in sorted(said & pairs.keys())
        if word not in read
        for other in sorted(pairs[word] & read - said)
    ]


def without_markers(text: str) -> str:
    """The text without ``[1]``-like marks: a source's own footnotes must not pass for citations."""
    # Taken out of "[[2]1]", a mark leaves another behind, which would be a forged citation.
    return _MARKER.sub(lambda left: f" ({left.group().strip(' []')})", _MARKER.sub("", text))
