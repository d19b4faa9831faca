"""What a generation lacks of another one."""

import random

from services.retrieve.corpus.reindex.difference import difference
from services.retrieve.stores.state import Revision


def revision(id_: str, content: str = "x", version: int = 1) -> Revision:
    return Revision(id_, content, version, "2026-01-01T00:00:00.000+00:00")


def test_what_agrees_is_left_alone() -> None:
    live = [revision("a"), revision("b", version=3)]
    assert len(difference(live, [revision("a"), revision("b", version=3)])) == 0


def test_new_changed_and_deleted_documents_are_told_apart() -> None:
    live = [revision("a"), revision("c", "new"), revision("d", version=2), revision("e")]
    dark = [revision("a"), revision("b"), revision("c", "old"), revision("d"), revision("f")]
    found = difference(live, dark)
    assert (found.copy, found.delete) == (["c", "d", "e"], ["b", "f"])
    assert len(found) == 5


def test_an_empty_generation_lacks_everything_and_a_full_one_is_emptied() -> None:
    all_of_it = [revision(id_) for id_ in "abc"]
    assert difference(all_of_it, []).copy == ["a", "b", "c"]
    assert difference([], all_of_it).delete == ["a", "b", "c"]


def test_doing_what_is_told_makes_them_equal() -> None:
    chance = random.Random(3)
    for _ in range(200):
        live = {n: revision(n, chance.choice("xy"), chance.randint(1, 2)) for n in sample(chance)}
        dark = {n: revision(n, chance.choice("xy"), chance.randint(1, 2)) for n in sample(chance)}
        found = difference(in_order(live), in_order(dark))
        for id_ in found.delete:
            del dark[id_]
        dark |= {id_: live[id_] for id_ in found.copy}
        assert dark == live


def sample(chance: random.Random) -> list[str]:
    return chance.sample("abcdefgh", chance.randint(0, 8))


def in_order(documents: dict[str, Revision]) -> list[Revision]:
    return [documents[id_] for id_ in sorted(documents)]
