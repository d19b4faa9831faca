"""What an answer depends on, as one key: whoever has the same key may be given the same answer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.generate.prompting.images import told
from services.generate.reading.passages import Passage
from services.generate.routing.decision import Decision
from shared.auth import Principal


@dataclass(frozen=True)
class Key:
    """question: with one space for all white space. rest: SHA-256 of everything else, in hex."""

    question: str
    rest: str


def key(
    question: str,
    asked: object,
    passages: Sequence[Passage],
    decision: Decision,
    principal: Principal,
) -> Key:
    """The key of an answer. asked: all else that the request says, as a dataclass; whatever field
    is added there later is part of the key without further work.

    The passages count as they were retrieved just now, by this caller: a document that changed, or
    that the caller may not read any more, makes another key. The scores do not count, as no writer
    sees them. Of the principal its rights count, and a reader's name is one of them.
    """
    parts: dict[str, Any] = {
        "asked": asked,
        "passages": [
            (one.n, one.corpus, one.document_id, one.id, one.title, one.url, one.text)
            for one in passages
        ],
        "decision": (
            decision.policy,
            decision.data_class,
            decision.tier,
            decision.version,
            decision.chain,
            decision.checks,
            decision.escalation,
            decision.last_resort,
            decision.declines,
        ),
        "principal": (
            principal.role,
            principal.readers,
            principal.corpora,
            principal.groups,
            principal.services,
        ),
    }
    text = orjson.dumps(parts, default=_plain, option=orjson.OPT_SORT_KEYS)
    return Key(" ".join(question.split()), hashlib.sha256(text).hexdigest())


def _plain(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(value)
    return told(value)  # an image, by its hash
