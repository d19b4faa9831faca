"""The chain of the audit trail, what a record says of an answer, and what is masked in it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from services.generate.trust.audit import (
    START,
    Finding,
    Head,
    Inspection,
    Link,
    canonical,
    linked,
)
from services.generate.trust.redact import masked


def chain(length: int) -> list[Link]:
    return list(linked(START, (canonical({"n": n, "a": "ä"}) for n in range(length))))


def findings(
    links: Sequence[Link], head: Head | None, anchors: Sequence[Head] = ()
) -> list[Finding]:
    inspection = Inspection(anchors)
    found = [one for link in links for one in inspection.take(link)]
    return [*found, *inspection.end(head)]


def places(links: Sequence[Link], head: Head | None) -> list[int]:
    return [one.seq for one in findings(links, head)]


def again(links: Sequence[Link], before: Head = START) -> list[Link]:
    """The links with all hashes computed anew, as somebody would who knows how."""
    return list(linked(before, (link.body for link in links)))


def test_a_hash_is_that_of_the_canonical_json_of_number_body_and_the_hash_before() -> None:
    first, second = chain(2)
    whole = {"seq": 2, "previous": first.hash, "body": json.loads(second.body)}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert second.hash == hashlib.sha256(text.encode()).hexdigest()
    assert first.previous == "0" * 64


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_whole_chain_has_nothing_wrong(length: int) -> None:
    links = chain(length)
    assert findings(links, links[-1].head if links else None) == []
    assert findings(links, links[-1].head if links else START, [one.head for one in links]) == []


TAMPERINGS: dict[str, tuple[Callable[[list[Link]], list[Link]], list[int]]] = {
    "a body is edited": (
        lambda links: [*links[:2], replace(links[2], body='{"n":7}'), *links[3:]],
        [3],
    ),
    "a body is edited and its hash computed anew": (
        lambda links: [*links[:2], *linked(links[1].head, ['{"n":7}']), *links[3:]],
        [4],
    ),
    "all after an edit is computed anew": (
        lambda links: again([links[0], replace(links[1], body='{"n":7}'), *links[2:]]),
        [5],
    ),
    "one in the midst is deleted": (lambda links: [*links[:2], *links[3:]], [3]),
    "the first is deleted": (lambda links: links[1:], [1]),
    "one is deleted and the rest computed anew": (
        lambda links: again([*links[:2], *links[3:]]),
        [5],
    ),
    "two change places": (
        lambda links: [
            links[0],
            replace(links[2], seq=2),
            replace(links[1], seq=3),
            *links[3:],
        ],
        [2, 2, 3, 3, 4],
    ),
    "two bodies change places": (
        lambda links: [
            links[0],
            replace(links[1], body=links[2].body),
            replace(links[2], body=links[1].body),
            *links[3:],
        ],
        [2, 3],
    ),
    "the end is cut off": (lambda links: links[:3], [4]),
    "all is deleted": (lambda links: [], [1]),
    "one is put in before the first": (
        lambda links: [replace(links[0], seq=0), *links],
        [0, 0, 1],
    ),
    "one is appended without the head": (
        lambda links: [*links, *linked(links[-1].head, ["{}"])],
        [6],
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_where_it_was_done(name: str) -> None:
    tamper, where = TAMPERINGS[name]
    links = chain(5)
    assert places(tamper(list(links)), links[-1].head) == where


def test_a_lost_head_is_told() -> None:
    assert places(chain(3), None) == [3]


def test_a_chain_that_was_made_anew_with_its_head_differs_from_a_logged_head() -> None:
    links = chain(5)
    made = again([links[0], replace(links[1], body='{"n":7}'), *links[2:]])
    assert findings(made, made[-1].head) == []
    [found] = findings(made, made[-1].head, [links[3].head])
    assert found.seq == 4
    [found] = findings(made[:3], made[2].head, [links[4].head])
    assert "record 5" in found.what
    assert "is missing" in found.what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to joe@example.org, please.", "Write to [email], please."),
        ("My card is 4111 1111 1111 1111.", "My card is [card]."),
        ("IBAN DE89 3704 0044 0532 0130 00 or +49 30 123456", "IBAN [iban] or [phone]"),
        ("Nothing of that in 2026.", "Nothing of that in 2026."),
    ],
)
def test_personal_data_that_has_a_form_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_of_several_heads_of_one_number_each_is_looked_at() -> None:
    links = chain(3)
    false = replace(links[1].head, hash="a" * 64)
    for anchors in ([false, links[1].head], [links[1].head, false]):
        assert [one.seq for one in findings(links, links[-1].head, anchors)] == [2]


def test_the_head_of_an_empty_trail_is_of_any_trail() -> None:
    links = chain(2)
    assert findings(links, links[-1].head, [START]) == []
