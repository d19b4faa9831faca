"""Recency: younger documents are preferred, within a bound. All functions are pure.

The decay of a document of `age` days is 0.5 ** (age / half life): 1 today, 0.5 after one half life.
A document without a date has decay 0: nothing is added to it, nothing taken away. Dates count in
the two places where an order is made, and in both of them they are bounded:

* In the fusion they are a further list beside those of the arms (`lift`). With s the fused score
  before, the score is (s + weight * decay) / (1 + weight), a share of the best possible again.
  Bound: a candidate can pass another only if its s is less than `weight` below the other's.
* In the curated window, which is ordered anew and would undo the former, they are added to the
  blend (`bonus`): Z_PER_SHARE * weight * decay, in the blend's own unit, mean z-scores. Bound: a
  passage can pass another only if its blend is less than Z_PER_SHARE * weight below the other's.

What a weight costs where dates say nothing (random ones within four half lives; nDCG@10 on SciFact
train, curated and not): 0.05 costs 0.001 and 0.014, 0.15 costs 0.004 and 0.056, 0.3 costs 0.028 and
0.142. It is therefore for questions and corpora that ask for it.

They never act inside an arm, and never by a factor: fused scores lie so close together that a
factor of 0.75 for what is old would let something new pass twenty places.
"""

import math
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.fusion import Fused
from services.retrieve.stores.base import Metadata

# How many mean z-scores are as far apart in a curated window as 1.0 of fused score is: the ratio of
# their standard deviations over windows of 50, 4.7 on SciFact train and 5.0 on NFCorpus dev.
Z_PER_SHARE = 5.0

_DAY_S = 86_400.0
# A number above it is no count of seconds (it would be the year 5138) but of milliseconds.
_MOST_SECONDS = 1e11


@dataclass(frozen=True, slots=True)
class RecencySettings:
    """How much dates count. half_life_days: over 0. weight: of the dates against all arms together,
    which have 1; over 0. It is the bound of a lift in fused score."""

    half_life_days: float
    weight: float

    @property
    def most_z(self) -> float:
        """The bound of a lift in the curated window, in mean z-scores."""
        return Z_PER_SHARE * self.weight


OfCorpora = Mapping[str, RecencySettings]  # by corpus; of one that is not in it dates don't count


def _most(settings: OfCorpora) -> float:
    return max((one.weight for one in settings.values()), default=0.0)


def decay(age_days: float | None, half_life_days: float) -> float:
    """0.5 ** (age / half life), 0..1; 0.0 without an age. What is dated ahead is of today."""
    return 0.0 if age_days is None else 0.5 ** (max(0.0, age_days) / half_life_days)


def within_lift(fused: Sequence[Fused], places: int, settings: OfCorpora) -> int:
    """How many of a fused list (best first), at least, must be dated to know its first `places`
    after a lift: what comes below is worse than the last of them by the bound of a lift."""
    if len(fused) <= places:
        return len(fused)
    # A little less than the bound, for what is lost in rounding.
    least = fused[places - 1].score - _most(settings) - 1e-9
    return bisect_left(fused, -least, key=lambda one: -one.score)


def lift(
    fused: Sequence[Fused], ages_days: Mapping[ChunkKey, float | None], settings: OfCorpora
) -> list[Fused]:
    """The fused list with the dates as a further list; equal scores keep their order.

    Chunks that are not in `ages_days` count as undated, and so do all of a corpus that is not in
    `settings`. The bound is in the module's docstring, for the highest of the weights.
    """
    whole = 1.0 + _most(settings)
    lifted = []
    for one in fused:
        own = settings.get(one.key.corpus)
        share = decay(ages_days.get(one.key), own.half_life_days) * own.weight if own else 0.0
        recency = share / whole
        lifted.append(
            replace(
                one,
                score=min(1.0, one.score / whole + recency),
                parts={arm: share / whole for arm, share in one.parts.items()},
                recency=recency,
            )
        )
    return sorted(lifted, key=lambda one: -one.score)


def bonus(ages_days: Mapping[ChunkKey, float | None], settings: OfCorpora) -> dict[ChunkKey, float]:
    """What is added to the blend of each dated chunk, 0..`most_z` mean z-scores; nothing of a
    corpus that is not in `settings`."""
    return {
        key: own.most_z * decay(age, own.half_life_days)
        for key, age in ages_days.items()
        if age is not None and (own := settings.get(key.corpus))
    }


def age_days(
    metadata: Metadata, field: str | None, updated_at: datetime, now: datetime
) -> float | None:
    """The age of a document in days, at least 0; None where it has no date.

    field: the metadata that holds its date, as ISO 8601 date or time (UTC where no zone is given)
    or as seconds or milliseconds since 1970; None takes `updated_at`. A field that is missing or
    is no date leaves the document undated: when it was stored says nothing of when it was written.
    `updated_at` and `now` have a zone.
    """
    if field is None:
        written: float | None = updated_at.timestamp()
    else:
        written = _unix_time(metadata.get(field))
    return None if written is None else max(0.0, (now.timestamp() - written) / _DAY_S)


def _unix_time(value: object) -> float | None:
    """Seconds since 1970 of a date in metadata, None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return None
        return float(value) if abs(value) < _MOST_SECONDS else value / 1000
    if not isinstance(value, str):
        return None
    try:
        written = datetime.fromisoformat(value.strip())
        return (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# Words by which a question asks for something recent, in the languages of the analysers and in
# those written without spaces. Words with another common sense are left out: current, now, new.
_RECENT: Mapping[str, str] = {
    "da": "seneste|nyeste|nylig|nyligt|for nylig|i dag|i går|denne uge|denne måned|i år|aktuelle?",
    "de": "neueste[nmrs]?|aktuell(?:e[nmrs]?|ste[nmrs]?)?|kürzlich|neulich|heute|gestern"
    "|(?:diese|dieser|letzte|letzter|vergangene|vergangener) woche"
    "|(?:dieser|diesen|diesem|letzten|letzter) monat|dieses jahr|was gibt es neues",
    "en": "latest|newest|most recent|recent|recently|today|todays|yesterday|nowadays|currently"
    "|up[- ]to[- ]date|(?:this|last|past) (?:week|month|year)|what(?:['\u2019]s|s| is) new",
    "es": "últim[oa]s? (?:noticias|versión|cambios|novedades)|más recientes?|recientes?"
    "|recientemente|hoy|ayer|esta semana|este mes|este año|actualmente|novedades",
    "fi": "viimeisin|viimeisimmät|uusin|uusimmat|äskettäin|tänään|eilen|tällä viikolla|tässä kuussa"
    "|tänä vuonna|ajankohtai\\w+",
    "fr": "derni(?:er|ère|ers|ères) (?:nouvelles|version|changements|mois|semaine|actualités)"
    "|plus récent(?:e|s|es)?|récent(?:e|s|es)?|récemment|aujourd['\u2019]hui|hier|cette semaine"
    "|ce mois|cette année|actuellement",
    "hu": "legújabb|legfrissebb|legutóbbi|nemrég|ma|tegnap|ezen a héten|ebben a hónapban|idén"
    "|aktuális|jelenleg",
    "it": "ultim[aeio] (?:notizie|versione|modifiche|novità)|più recent[ei]|recent[ei]"
    "|recentemente|oggi|ieri|questa settimana|questo mese|quest['\u2019]anno|attualmente|novità",
    "ja": "最新|最近|今日|昨日|今週|今月|今年|先週|先月",
    "ko": "최신|최근|오늘|어제|이번 주|이번 달|올해|지난주|지난달",
    "nl": "nieuwste|laatste nieuws|recente?|meest recente|onlangs|vandaag|gisteren|deze week"
    "|deze maand|dit jaar|actuele?|momenteel",
    "no": "siste nytt|seneste|nyeste|nylig|i dag|i går|denne uken|denne måneden|i år|aktuelle?",
    "pt": "últim[oa]s? (?:notícias|versão|alterações|novidades)|mais recentes?|recentes?"
    "|recentemente|hoje|ontem|esta semana|este mês|este ano|atualmente|novidades",
    "ru": "последн\\w+ (?:новост\\w+|верси\\w+|изменени\\w+)|новейш\\w+|свеж\\w+|недавн\\w+"
    "|сегодня|вчера|на этой неделе|в этом месяце|в этом году|актуальн\\w+",
    "sv": "senaste|nyaste|nyligen|idag|i dag|igår|i går|denna vecka|den här veckan|denna månad"
    "|i år|aktuell[at]?",
    "zh": "最新|最近|今天|昨天|本周|这周|本月|这个月|今年|上周|上个月",
}
_UNSPACED = frozenset({"ja", "ko", "zh"})
# They hold such a word, and ask for nothing recent.
_NOT_RECENT: Mapping[str, str] = {"en": r"\bat the latest\b"}


def asks_for_recent(query: str, language: str) -> bool:
    """Whether a query asks for something recent, by words of its language (ISO 639-1).

    False for a language without such a list.
    """
    text = _folded(query)
    if language in _NOT_RECENT:
        text = re.sub(_NOT_RECENT[language], " ", text)
    return language in _RECENT and _pattern(language).search(text) is not None


@cache
def _pattern(language: str) -> re.Pattern[str]:
    words = _folded(_RECENT[language])
    return re.compile(words if language in _UNSPACED else rf"(?<!\w)(?:{words})(?!\w)")


def _folded(text: str) -> str:
    """Small letters without accents, one space between words: as many people type."""
    plain = unicodedata.normalize("NFKD", " ".join(text.casefold().split()))
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
