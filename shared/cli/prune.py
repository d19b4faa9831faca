"""What a corpus holds that the files no longer do, and what a run would change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.cli.changes import Comparison, Hashes
from shared.cli.delivery import Step
from shared.cli.documents import listed
from shared.cli.failures import CliError
from shared.cli.folder import Found, Rules
from shared.cli.http import Api, corpus_path
from shared.cli.sources import NO_LIMITS, Entry
from shared.cli.upload import Tally, corpus_exists, distinct, documents_of, limits_of

_AT_ONCE = 1000


def gone(api: Api, corpus: str, prefix: str, found: Found, tally: Tally) -> list[str]:
    """The ids of those documents of `corpus` that begin with `prefix` and were not found.

    Raises CliError where that can't be known, or is hardly meant: what can't be read is not gone,
    and a folder in which there is nothing at all may be one that was not mounted.
    """
    if tally.incomplete:
        raise CliError(
            f"nothing was deleted, for it is not known what {tally.incomplete[0]} holds: mend "
            "that, or leave out --prune"
        )
    if found.empty or not tally.ids:
        where = ", ".join(found.empty) or "what was given"
        raise CliError(
            f"nothing was deleted, for there is no document in {where}, perhaps a folder that is "
            "not mounted: leave it out; `refdesk corpora delete` deletes a whole corpus"
        )
    stored = (one["id"] for one in listed(api, corpus, prefix, ""))
    return [one for one in stored if one not in tally.ids]


def delete(api: Api, corpus: str, ids: Sequence[str], tally: Tally) -> None:
    """Delete documents. Raises CliError."""
    for at in range(0, len(ids), _AT_ONCE):
        path = f"{corpus_path(corpus)}/documents/delete"
        answer = api.post(path, {"ids": ids[at : at + _AT_ONCE]}, "deleted")
        tally.add(Step(statuses=(("deleted", len(answer["deleted"])),)))


@dataclass(frozen=True)
class Plan:
    """What a run would do: ids of documents, in order. tally: what it would not."""

    create: list[str] = field(default_factory=list)
    replace: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)


def plan(
    api: Api, corpus: str, found: Found, rules: Rules, say: Callable[[str], None], *, prune: bool
) -> Plan:
    """What storing what was found would do, without doing it; with `prune` also what is gone. What
    the desk would find wrong with a document shows only when it is stored. say: told why it does
    not go on. Raises CliError."""
    planned = Plan()
    tally, prefix = planned.tally, rules.prefix
    there = corpus_exists(api, corpus)
    items = documents_of(found, rules, limits_of(api, corpus) if there else NO_LIMITS)
    stored = {one["id"] for one in listed(api, corpus, prefix, "")} if there else set()

    def same(entry: Entry) -> None:
        tally.add(Step(1, entry.size, statuses=(("unchanged", 1),)))

    with Comparison(api, corpus, Hashes(), say, there=there) as comparison:
        documents = distinct(items, tally, tally.fail)
        for entry in comparison.changed(documents, unchanged=same, failed=tally.fail):
            (planned.replace if entry.id in stored else planned.create).append(entry.id)
    if prune and there:
        planned.delete.extend(gone(api, corpus, prefix, found, tally))
    return planned
