"""The swap itself, what is read back of it, and what is left to do after it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.reindex.faults import refused
from services.retrieve.corpus.reindex.gates import Proof
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.engine import Engine
from shared.errors import ApiError
from shared.telemetry import get_logger

_ANY_TIME = datetime.max.replace(tzinfo=UTC)

log = get_logger(__name__)


@dataclass(frozen=True)
class Swapped:
    """What came of a swap. fault: what was read back was wrong, and the former generation is live
    again, if that could be done."""

    fault: ApiError | None = None


def swap_in(
    catalog: Catalog, live: CorpusStore, dark: CorpusStore, until: datetime, proof: Proof
) -> Swapped:
    """Swap, and read back what will be served; to be called with `live` sealed, and followed by
    `reopened` once it is no more.

    Raises ApiError where nothing was swapped; of two engines also where what was read is wrong.
    """
    name = live.info.name
    engine = catalog.engine_named(dark.info.engine)
    moved = dark.info.engine != live.info.engine
    wanted = live.whole(proof.sample)
    former = catalog.engine_named(live.info.engine)
    if not moved:
        engine.swap(name, until)  # if it raises, a store that was retired by it knows
    try:
        if moved:
            engine.swap(name, until)
        fault = _fault(engine.open(name), dark, live, wanted, proof)
        if fault is None and moved:
            former.step_down(name, until)
    except Exception as error:  # whatever it is, nobody may be served from it
        fault = str(error)
    if fault is not None:
        log.error("swap_undone", corpus=name, reason=fault)
        undone = refused(name, f"the swap was undone, as what was read back is wrong: {fault}")
        if moved:
            _undo(engine, name, moved=moved)
            raise undone
        try:
            _undo(engine, name, moved=moved)
        except Exception as error:  # whatever it is, it must not keep `live` from being retired
            return Swapped(_not_undone(engine, name, until, fault, error))
        return Swapped(undone)
    for other in catalog.engines.values():
        if other is not former:  # where an earlier move left one
            with suppress(ApiError):  # it goes when its time is over
                other.forget(name, _ANY_TIME)
    log.info(
        "corpus_swapped", corpus=name, generation=dark.info.generation, engine=dark.info.engine
    )
    return Swapped()


def reopened(catalog: Catalog, name: str) -> None:
    """Serve what is live by now; nothing where the corpus was deleted meanwhile."""
    try:
        catalog.reopen(name)
    except ApiError as error:
        if error.status != 404:
            raise


def stand_alone(catalog: Catalog, name: str, engine: Engine, until: datetime) -> None:
    """Let no other engine have a live generation of a corpus that this one serves."""
    for other in catalog.engines.values():
        if other is not engine and name in other.names():
            with other.open(name).sealed():
                other.step_down(name, until)
    catalog.reopen(name)


def stand_back(engine: Engine, name: str) -> None:
    """Let an engine have no live generation of a corpus that another one serves: where a move was
    broken off in the middle, and could not be undone. It is the previous one then, until it is
    forgotten or gone back to."""
    engine.step_down(name, datetime.now(UTC))


def _undo(engine: Engine, name: str, *, moved: bool) -> None:
    now = datetime.now(UTC)
    if moved:
        engine.step_down(name, now)
    else:
        engine.revive(name)
        engine.swap(name, now)
    with suppress(ApiError):  # it goes when its time is over
        engine.forget(name, now)


def _not_undone(
    engine: Engine, name: str, until: datetime, fault: str, error: Exception
) -> ApiError:
    """The error for a swap that stands though it should not. What is written from now on goes to
    the generation that the next process would serve, too: to the former one it would be lost."""
    with suppress(Exception):
        engine.shelve(name, until)  # the former one, where the undoing came so far
    return ApiError(
        500,
        "corpus_damaged",
        f"the next generation of corpus '{name}' is served, though what was read back of it is "
        f"wrong ({fault}), as the swap could not be undone ({error}): go back with `refdesk "
        f"rollback {name}`",
    )


def _fault(
    served: CorpusStore,
    dark: CorpusStore,
    live: CorpusStore,
    wanted: Mapping[str, NewDocument],
    proof: Proof,
) -> str | None:
    """What is wrong with the generation that will be served, if anything is."""
    if served.info.generation != dark.info.generation:
        return f"generation {served.info.generation} would be served"
    there, expected = served.info.documents, live.info.documents
    if there != expected:
        return f"it has {there} documents, and not {expected}"
    found = served.whole(list(wanted))
    for id_, one in wanted.items():
        other = found.get(id_)
        if other is None or not _same(one, other):
            return f"document '{id_}' is not as it was"
    return proof.fault_of(served)


def _same(one: NewDocument, other: NewDocument) -> bool:
    """Whether two generations have the same document, however each has cut it."""
    if len(other.chunks) and not np.isfinite(other.vectors).all():
        return False
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("text", "title", "url", "format", "metadata", "readers", "outline", "version")
    )
