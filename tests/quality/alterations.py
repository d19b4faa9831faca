"""How a true sentence of an article is made untrue, or said otherwise, by rule.

Each rule takes the sentence, its article and a source of chance, and gives the changed text: None,
or the text as it was, where it does not apply.
"""

import calendar
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from services.generate.reading.sentences import split
from services.generate.reading.words import STOP_WORDS, numbers, stem, terms

_MONTHS = list(calendar.month_name)[1:]
_MONTH = "|".join(_MONTHS)
_NAME = re.compile(
    r"[A-Z][\w'\u2019-]*\w(?:(?: (?:of|de|the|von|van))? [A-Z][\w'\u2019-]*\w)*(?![\w'\u2019-])"
)
_YEAR = re.compile(r"(?<![\w$\u00a3\u20ac,.-])(?:1\d{3}|20[0-2]\d)(?![\w,%]|\.\d|-\d)")
_DATED = re.compile(rf"\b(?:{_MONTH})\b(?! (?:not|have|be))")
_DAY = re.compile(rf"\b(?:{_MONTH}) (?P<after>\d{{1,2}})\b|\b(?P<before>\d{{1,2}}) (?:{_MONTH})\b")
_NUMBER = re.compile(r"(?<![\w.,:/-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w:/]|[-.,]\d)")
_SPELT = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_SPELT_NUMBER = re.compile(rf"\b(?:{'|'.join(_SPELT)})\b(?!-)")
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|has|have|had|can|could|will|would|should|must|may|might|did|does)\b"
    r"(?! not\b|n't)"
)
_NEGATION = re.compile(r"\b(?:not|never)\s|n['\u2019]t\b")
_CONTRACTED = {
    **{
        f"{verb} not": f"{verb}n't"
        for verb in ["is", "are", "was", "were", "has", "have", "had", "did", "does", "do"]
    },
    **{f"{verb} not": f"{verb}n't" for verb in ["could", "would", "should"]},
    "cannot": "can't",
    "will not": "won't",
    "it is": "it's",
    "they are": "they're",
}
_OPENING = re.compile(
    r"^((?:In|On|At|By|During|After|Before|When|While|Since|Although|Because|Under|For|From|With|"
    r"Following|Despite|As|If|Until|Between) [^,;:()\"]{3,80}(?:, \d{4})?), "
    r"(?!\d{4}\b)([^;:()\"]+)\.$"
)


@dataclass(frozen=True)
class Found:
    """A sentence that holds an answer. before: the sentence before it, "" at the beginning."""

    text: str
    before: str
    question: str
    paragraph: str


@dataclass(frozen=True)
class Article:
    """paragraphs: texts without footnote marks. names: all that its sentences hold, each once."""

    title: str
    paragraphs: tuple[str, ...]
    sentences: tuple[Found, ...]
    names: tuple[str, ...]


Rule = Callable[[Found, Article, random.Random], str | None]


def names_of(text: str, certain: Collection[str] = ()) -> list[str]:
    """Names in order, without a possessive 's; months and such are none.

    A capital at the beginning of a sentence says nothing: those are names that are `certain` to be.
    """
    found = []
    for sentence in split(text):
        for match in _NAME.finditer(sentence.text):
            name = re.sub(r"['\u2019]s?$", "", match.group())
            words = re.findall(r"\w+", name)
            if {*words} & {*_MONTHS} or words[0].lower() in STOP_WORDS or len(name) < 3:
                continue
            if match.start() or name in certain:
                found.append(name)
    return found


# --- untrue ---


def _swap_entity(
    found: Found, article: Article, pool: Sequence[str], draw: random.Random
) -> str | None:
    here = [name for name in names_of(found.text, article.names) if found.text.count(name) == 1]
    if not here:
        return None
    old = draw.choice(here)
    taken = {stem(word.lower()) for word in re.findall(r"\w+", found.text)}
    others = [
        name
        for name in pool
        # "Nikola Tesla" for "Tesla" would stay true.
        if not {stem(word.lower()) for word in re.findall(r"\w+", name)} & (taken - {"of", "the"})
    ]
    if not others:
        return None
    return found.text.replace(old, draw.choice(others))


def _entity_near(found: Found, article: Article, draw: random.Random) -> str | None:
    return _swap_entity(found, article, names_of(found.paragraph), draw)


def _entity(found: Found, article: Article, draw: random.Random) -> str | None:
    near = {*names_of(found.paragraph)}
    far = [name for name in article.names if name not in near]
    return _swap_entity(found, article, far, draw)


def _word_near(found: Found, article: Article, draw: random.Random) -> str | None:
    """A word in lower case replaced by another of the same ending: more noise than the others."""
    word = re.compile(r"(?<![\w'\u2019-])[a-z]{4,}(?![\w'\u2019-])")
    taken = {*terms(found.text)}
    here = [one for one in word.findall(found.text) if one not in STOP_WORDS]
    there = {one for one in word.findall(found.paragraph) if one not in STOP_WORDS | {*_SPELT}} - {
        *here
    }
    pairs = [
        (old, new)
        for old in here
        for new in sorted(there)
        if old[-2:] == new[-2:] and stem(new) not in taken and found.text.count(old) == 1
    ]
    if not pairs:
        return None
    old, new = draw.choice(pairs)
    return found.text.replace(old, new)


def _dates(text: str) -> list[tuple[int, int]]:
    spans = [match.span() for pattern in (_YEAR, _DATED) for match in pattern.finditer(text)]
    spans += [match.span(match.lastgroup or 0) for match in _DAY.finditer(text)]
    return sorted(spans)


def _plain_numbers(text: str) -> list[tuple[int, int]]:
    dates = _dates(text)
    spans = [
        match.span() for pattern in (_NUMBER, _SPELT_NUMBER) for match in pattern.finditer(text)
    ]
    return sorted(span for span in spans if all(span[1] <= a or span[0] >= b for a, b in dates))


def _put(text: str, span: tuple[int, int], new: str) -> str:
    return text[: span[0]] + new + text[span[1] :]


def _near(
    found: Found,
    draw: random.Random,
    spans: Callable[[str], list[tuple[int, int]]],
) -> str | None:
    """With one of the spans replaced by another of its form from the same paragraph."""
    chosen = spans(found.text)
    if not chosen:
        return None
    span = draw.choice(chosen)
    old = found.text[slice(*span)]
    there = [found.paragraph[slice(*one)] for one in spans(found.paragraph)]
    said = {*numbers(found.text)}
    others = [
        new
        for new in there
        if _form(new) == _form(old) and new not in found.text and not {*numbers(new)} & said
    ]
    return _put(found.text, span, draw.choice(others)) if others else None


def _form(text: str) -> str:
    if text in _MONTHS:
        return "month"
    return "year" if _YEAR.fullmatch(text) else "digits" if text[0].isdigit() else "word"


def _invented(
    found: Found,
    draw: random.Random,
    spans: Callable[[str], list[tuple[int, int]]],
) -> str | None:
    chosen = spans(found.text)
    if not chosen:
        return None
    span = draw.choice(chosen)
    old = found.text[slice(*span)]
    if old in _MONTHS:
        new = draw.choice([month for month in _MONTHS if month not in found.text])
    elif old in _SPELT:
        new = draw.choice([word for word in _SPELT if word not in found.text])
    else:
        value = float(old.replace(",", ""))
        step = draw.choice([-3, -2, -1, 1, 2, 3, 10, 30])
        if "." in old:
            new = f"{abs(value + step / 10):.{len(old.partition('.')[2])}f}"
        else:
            new = (
                f"{abs(int(value) + step) or 40:,}"
                if "," in old
                else f"{abs(int(value) + step) or 40}"
            )
    return _put(found.text, span, new)


def _negation_in(found: Found, article: Article, draw: random.Random) -> str | None:
    match = _AUXILIARY.search(found.text)
    if match is None:
        return None
    word = draw.choice(["not", "never"])
    return f"{found.text[: match.end()]} {word}{found.text[match.end() :]}"


def _negation_out(found: Found, article: Article, draw: random.Random) -> str | None:
    if _NEGATION.search(found.text) is None:
        return None
    return _NEGATION.sub("", found.text, count=1)


CORRUPTIONS: Mapping[str, Rule] = {
    "entity near": _entity_near,
    "entity": _entity,
    "word near": _word_near,
    "number near": lambda found, _, draw: _near(found, draw, _plain_numbers),
    "number": lambda found, _, draw: _invented(found, draw, _plain_numbers),
    "date near": lambda found, _, draw: _near(found, draw, _dates),
    "date": lambda found, _, draw: _invented(found, draw, _dates),
    "negation in": _negation_in,
    "negation out": _negation_out,
}


# --- true ---


def _lowered(text: str) -> str:
    """Without the capital of its first word where that is no name."""
    first = text.split(maxsplit=1)[0].strip(",")
    return text[0].lower() + text[1:] if first.lower() in STOP_WORDS else text


def _opened(found: Found, article: Article, draw: random.Random) -> str:
    opening = draw.choice(
        [
            "According to the passage,",
            "According to the sources,",
            f"According to the article on {article.title},",
            "As stated in the text,",
            "The passage says that",
        ]
    )
    return f"{opening} {_lowered(found.text)}"


def _title_for_pronoun(found: Found, article: Article, draw: random.Random) -> str | None:
    """Only where the sentence before speaks of the title: or else it may mean another."""
    match = re.match(r"(?:It|He|She|They) ", found.text)
    if match is None or not {*terms(article.title)} & {*terms(found.before)}:
        return None
    return f"{article.title} {found.text[match.end() :]}"


def _reordered(found: Found, article: Article, draw: random.Random) -> str | None:
    match = _OPENING.match(found.text)
    if match is None:
        return None
    rest = match[2]
    return f"{rest[0].upper()}{rest[1:]} {_lowered(match[1])}."


def _contracted(found: Found, article: Article, draw: random.Random) -> str:
    text = found.text
    for long, short in _CONTRACTED.items():
        text = re.sub(rf"\b{long}\b", short, text)
        text = re.sub(rf"^{long.capitalize()}\b", short.capitalize(), text)
    return text


def _numbers_otherwise(found: Found, article: Article, draw: random.Random) -> str:
    text = re.sub(r"(\d)%", r"\1 percent", found.text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<![\d.,$\u00a3\u20ac])(\d+) million\b", _in_full, text)
    text = re.sub(
        r"\$(\d+(?:\.\d+)?(?: [mbt]r?illion)?)(?!\d|[.,]\d| \w+illion)", r"\1 dollars", text
    )
    text = _SPELT_NUMBER.sub(lambda match: str(_SPELT.index(match.group()) + 2), text)
    if text != found.text:
        return text
    small = re.compile(r"(?<![\w.,$\u00a3\u20ac-])([2-9]|1[0-2])(?= [a-z])(?! [ap]\.?m)")
    return small.sub(lambda match: _SPELT[int(match[1]) - 2], text)


def _in_full(match: re.Match[str]) -> str:
    return f"{int(match[1]) * 1_000_000:,}"


def _dates_otherwise(found: Found, article: Article, draw: random.Random) -> str:
    form = draw.choice(["{d} {m} {y}", "{y}-{i:02}-{d:02}", "the {d}th of {m} {y}"])
    american = rf"\b({_MONTH}) (\d{{1,2}}), (\d{{4}})\b"
    if re.search(american, found.text):
        return re.sub(american, lambda match: _date(form, match[2], match[1], match[3]), found.text)
    form = draw.choice(["{m} {d}, {y}", "{y}-{i:02}-{d:02}"])
    british = rf"\b(\d{{1,2}}) ({_MONTH}) (\d{{4}})\b"
    return re.sub(british, lambda match: _date(form, match[1], match[2], match[3]), found.text)


def _date(form: str, day: str, month: str, year: str) -> str:
    return form.format(d=int(day), m=month, y=year, i=_MONTHS.index(month) + 1)


def _shortened(found: Found, article: Article, draw: random.Random) -> str:
    """Without what stands in brackets, or the clause at the end that adds something."""
    text = re.sub(r" \([^()]*\)", "", found.text)
    if text != found.text:
        return text
    return re.sub(r"(?<=\w), (?:which|who|including|such as|where) [^,;]+\.$", ".", text)


REWORDINGS: Mapping[str, Rule] = {
    "opening": _opened,
    "title for pronoun": _title_for_pronoun,
    "clause order": _reordered,
    "contraction": _contracted,
    "shortened": _shortened,
    "number format": _numbers_otherwise,
    "date format": _dates_otherwise,
}
