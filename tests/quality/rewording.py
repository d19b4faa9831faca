"""Rules that reword a question without changing what it asks."""

import re
from collections.abc import Callable, Mapping

_SYNONYMS = """
    which of the following=which one of these|choose=select|best=most suitable|
    describes=characterises|called=termed|because=since|big=large|begin=start|begins=starts|
    began=started|often=frequently|usually=typically|primarily=mainly|approximately=about|
    nearly=almost|people=persons|children=kids|found=discovered|shows=demonstrates|
    show=demonstrate|significant=important|result=outcome|results=outcomes|cause=bring about|
    causes=brings about|caused=brought about|help=assist|helps=assists|buy=purchase|
    bought=purchased|get=obtain|gets=obtains|need=require|needs=requires|needed=required|
    use=employ|uses=employs|used=employed|method=approach|problem=difficulty|rapid=quick|
    rapidly=quickly|total=overall|example=instance|however=nevertheless|therefore=thus|
    although=though|wife=spouse|house=home|car=automobile|doctor=physician|job=occupation|
    kill=slay|killed=slain|statement=assertion|likely=probable|true=correct|correct=right|
    main=principal|different=distinct|whole=entire|begun=started|ended=finished|area=region|
    amount=quantity|during=in the course of|increase=rise|decrease=decline|purpose=aim
"""


def _table() -> Mapping[str, str]:
    pairs = (pair.strip().partition("=") for pair in _SYNONYMS.split("|"))
    return {one: other for one, _, other in pairs}


_OTHERS = _table()
_REPLACED = re.compile(
    rf"\b(?:{'|'.join(sorted(_OTHERS, key=len, reverse=True))})\b", re.IGNORECASE
)


def synonyms(text: str) -> str:
    """Common words by others of the same sense, capitals at the beginning kept."""

    def other(match: re.Match[str]) -> str:
        word = _OTHERS[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return _REPLACED.sub(other, text)


def _spaced(text: str) -> str:
    return f"\n  {text.replace(' ', '  ').replace(chr(10), chr(10) * 2)}\t\n"


# The last two use words that the router's own list of courtesies does not know.
REWORDINGS: Mapping[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "small letters": str.lower,
    "white space": _spaced,
    "one line": lambda text: " ".join(text.split()),
    "please": lambda text: f"Could you please tell me: {text}",
    "greeting and thanks": lambda text: f"Hello! {text}\nThank you very much in advance.",
    "synonyms": synonyms,
    "unknown courtesy before": lambda text: f"I have a quick question for you. {text}",
    "unknown courtesy after": lambda text: f"{text}\nAny hint is welcome!",
}
