"""The open corpora, whichever engine holds each: what there is, and how they come and go."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.retrieve.corpus.chunk import CHUNKER
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import (
    CORPUS_NAME,
    CorpusInfo,
    CorpusSpec,
    EngineName,
    ModelStamp,
)
from services.retrieve.stores.engine import Cut, Engine
from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.remote import Shared
from shared.errors import ApiError
from shared.settings import Device
from shared.telemetry import get_logger

_FOLLOW_S = 1.0

log = get_logger(__name__)


class Catalog:
    """The open corpora of all engines. Safe to use from several threads."""

    def __init__(self, engines: Mapping[EngineName, Engine], default: EngineName) -> None:
        """Open every corpus that the engines hold, and take over the engines.

        default: which one holds new corpora. A corpus that can't be read does not keep the others
        from being served: it is logged, listed in `damaged`, and each use of it raises that error.
        """
        self._engines = dict(engines)
        self._default = default
        self._places: dict[str, EngineName] = {}
        self._stores: dict[str, CorpusStore] = {}
        self._damaged: dict[str, ApiError] = {}
        self._hidden: set[str] = set()  # corpora that are being filled, which nobody sees yet
        # Guards creating, deleting and reopening; looking up needs none, a dict's reads are atomic.
        self._changes = threading.Lock()
        self._generations: dict[str, threading.Lock] = {}
        self._seen: dict[EngineName, Mapping[str, int]] = {}  # what engines served last
        self._closing = threading.Event()
        self._following: threading.Thread | None = None
        having: dict[str, list[EngineName]] = {}
        for kind, engine in self._engines.items():
            if isinstance(engine, Shared):
                self._seen[kind] = engine.look()
            for name in engine.names():
                having.setdefault(name, []).append(kind)
        for name in sorted(having):
            self._open(name, self._serving(name, having[name]))

    @classmethod
    def open(cls, folder: Path, device: Device = "cpu") -> "Catalog":
        """Those of a folder of this machine alone. Raises StartupError as `LocalEngine.at`."""
        return cls({"local": LocalEngine.at(folder, device)}, "local")

    @property
    def damaged(self) -> dict[str, str]:
        """Corpora that can't be used: name to what is wrong with them and what to do."""
        return {name: error.message for name, error in self._damaged.copy().items()}

    @property
    def engines(self) -> Mapping[EngineName, Engine]:
        """The engines that are set up."""
        return self._engines

    def engine_named(self, kind: EngineName) -> Engine:
        """An engine that is set up. Raises ApiError 422 `no_such_engine`."""
        if kind not in self._engines:
            raise ApiError(
                422,
                "no_such_engine",
                f"there is no engine '{kind}' here, only {', '.join(self._engines)}: name one of "
                "them, or set up the other in retrieve's settings",
                param="engine",
            )
        return self._engines[kind]

    def generations(self, name: str) -> threading.Lock:
        """To be held by whoever makes, swaps or removes generations of a corpus: of two at once
        each would take the other's for its own."""
        return self._generations.setdefault(name, threading.Lock())

    def stores(self) -> list[CorpusStore]:
        """The usable corpora, by name."""
        stores = self._stores.copy()  # atomic: others come and go in other threads
        return [stores[name] for name in sorted(stores)]

    def list(self) -> list[CorpusInfo]:
        """The usable corpora as they are now, by name."""
        return [store.info for store in self.stores()]

    def get(self, name: str) -> CorpusStore:
        """An open corpus.

        Raises ApiError 404 where there is none of that name, 500 where it is damaged.
        """
        store = self._stores.get(name)
        if store is not None:
            return store
        error = self._damaged.get(name)
        if error is not None:
            # A new one each time: an exception that is raised again keeps the frames of each time.
            raise ApiError(error.status, error.code, error.message)
        raise _not_found(name)

    def engine(self, name: str) -> Engine:
        """The engine that holds a corpus, damaged or not. Raises ApiError 404."""
        kind = self._places.get(name)
        if kind is None:
            raise _not_found(name)
        return self._engines[kind]

    def create(
        self,
        spec: CorpusSpec,
        stamp: ModelStamp,
        *,
        sparse: bool = False,
        chunker: str = CHUNKER,
        engine: EngineName | None = None,
    ) -> tuple[CorpusInfo, bool]:
        """Make an empty corpus, whole or not at all; (its info, True), or False if it was there.

        sparse: whether its chunks shall have sparse vectors; one that was there stays as it is, and
        where it is. chunker: what is to cut its documents. engine: which is to hold it, None for
        the default one.
        Raises ApiError: 422 for a bad name, an unknown language or an engine that is not set up,
        409 where the corpus exists with other settings (an empty description asks for nothing), 500
        where it exists and is damaged, 507 for a full disk.
        """
        require_name(spec.name)
        kind = engine or self._default
        into = self.engine_named(kind)
        with self._changes:
            if spec.name in self._places:
                info = self.get(spec.name).info
                _require_same(Cut(spec, stamp, chunker), info)
                return info, False
            self._require_not_hidden(spec.name)
            store = into.create(Cut(spec, stamp, chunker, sparse))
            self._places[spec.name] = kind
            self._stores[spec.name] = store
            log.info("corpus_created", corpus=spec.name)
            return store.info, True

    @contextmanager
    def adding(self, cut: Cut) -> Iterator[CorpusStore]:
        """A new corpus, in the default engine, that is filled in the block: nobody sees it before
        the block ends, and if it raises there is none.

        A process that dies meanwhile leaves it behind. Raises ApiError 422 for a bad name, 409
        where there is such a corpus, 507 for a full disk.
        """
        name = cut.spec.name
        require_name(name)
        engine = self._engines[self._default]
        with self._changes:
            self._require_not_hidden(name)
            if name in self._places:
                raise corpus_exists(name)
            store = engine.build(cut)
            self._hidden.add(name)
        try:
            yield store
            engine.swap(name, None)
        except BaseException:
            with self._changes:
                try:
                    store.close(keep=False)
                    engine.discard(name)
                finally:  # the name is free, whatever the disk or the catalogue says
                    self._hidden.discard(name)
            raise
        with self._changes:
            self._hidden.discard(name)
            self._stores[name] = engine.open(name)
            self._places[name] = self._default
        log.info("corpus_created", corpus=name)

    def delete(self, name: str) -> None:
        """Delete a corpus, whole or not at all; a damaged one can be deleted, too.

        Raises ApiError 404 where there is none of that name, 507 where the disk refuses.
        """
        with self._changes:
            serving = self.engine(name)
            store = self._stores.pop(name, None)
            if store is not None:
                # Before its files go: a write that is under way ends well, and nothing of this
                # corpus is left that could get at another one made in its place.
                store.close(keep=False)
            try:
                # What another engine keeps of it goes first, so that nothing of it comes up again.
                for engine in self._engines.values():
                    if engine is not serving and _keeps(engine, name):
                        engine.delete(name)
                serving.delete(name)
            except ApiError:
                self._open(name, self._places[name])
                raise
            self._damaged.pop(name, None)
            del self._places[name]
        log.info("corpus_deleted", corpus=name)

    def start(self) -> None:
        """Take note every second of what other processes do to the corpora, until it is closed;
        where they can't, nothing happens."""
        if self._following is None and any(
            isinstance(one, Shared) for one in self.engines.values()
        ):
            self._following = threading.Thread(
                target=self._keep_following, name="corpora", daemon=True
            )
            self._following.start()

    def follow(self) -> None:
        """Take note of corpora that other processes made, swapped or deleted, and of what they
        wrote. Raises ApiError 503 where that can't be known now."""
        with self._changes:
            for kind, engine in self._engines.items():
                if not isinstance(engine, Shared):
                    continue
                before, now = self._seen[kind], engine.look()
                here = {name for name, place in self._places.items() if place == kind}
                changed = {name for name, made in now.items() if before.get(name) != made}
                for name in sorted(changed | ((here | before.keys()) - now.keys())):
                    if name not in self._hidden and not self._moving(name, kind):
                        self._settle(name)
                self._seen[kind] = now

    def reopen(self, name: str) -> None:
        """Serve the generation that is live now, in whichever engine, after it was swapped in.

        The one of before is let go of, and goes with the last search that holds it. Raises ApiError
        404 where there is no such corpus, and what `Engine.open` raises.
        """
        with self._changes:
            self._settle(name)
            if name not in self._places:
                raise _not_found(name)

    def close(self) -> None:
        """Close every corpus, and the engines."""
        self._closing.set()
        if self._following is not None:
            self._following.join()
        with self._changes:
            for store in self._stores.values():
                store.close()
            self._stores.clear()
            for engine in self._engines.values():
                engine.close()

    def _require_not_hidden(self, name: str) -> None:
        if name in self._hidden:
            message = f"corpus '{name}' is being restored: wait until that is done"
            raise ApiError(409, "corpus_busy", message)

    def _keep_following(self) -> None:
        while not self._closing.wait(_FOLLOW_S):
            try:
                self.follow()
            except ApiError as error:
                log.warning("corpora_not_followed", reason=error.message)
            except Exception as error:  # the next turn may do better, and none must be the last
                log.exception("corpora_not_followed", reason=str(error))

    def _moving(self, name: str, to: EngineName) -> bool:
        """Whether a corpus is on its way to an engine, and still live where it is served from. What
        is read back of it there may be wrong: then what was written to it there would be lost."""
        place = self._places.get(name)
        return place not in (None, to) and name in self.engine(name).names()

    def _settle(self, name: str) -> None:
        """Serve what there is of a corpus now, if anything. Raises what `Engine.open` does."""
        having = [kind for kind, engine in self._engines.items() if name in engine.names()]
        if having:
            kind = self._serving(name, having)
            self._stores[name] = self._engines[kind].open(name)
            self._places[name] = kind
            self._damaged.pop(name, None)
        elif name in self._places:
            self._stores.pop(name, None)
            self._damaged.pop(name, None)
            del self._places[name]
            log.info("corpus_gone", corpus=name)

    def _open(self, name: str, kind: EngineName) -> None:
        """Open a corpus of an engine; one that can't be read is damaged from then on."""
        self._places[name] = kind
        try:
            self._stores[name] = self._engines[kind].open(name)
        except ApiError as error:
            self._damaged[name] = error
            log.error("corpus_damaged", corpus=name, reason=error.message)  # noqa: TRY400 - the reason says it all

    def _serving(self, name: str, having: Sequence[EngineName]) -> EngineName:
        """Which of the engines that have a live generation of a corpus has the one to serve: that
        whose number is higher."""
        if len(having) == 1:
            return having[0]
        return max(having, key=lambda kind: _live_number(self._engines[kind], name))


def _keeps(engine: Engine, name: str) -> bool:
    """Whether an engine keeps anything of a corpus, if only what can't be read."""
    try:
        return len(engine.generations(name)) > 0
    except ApiError:
        return True


def _live_number(engine: Engine, name: str) -> int:
    """The number of an engine's live generation of a corpus, 0 where it can't be read."""
    try:
        return max(one.number for one in engine.generations(name) if one.state == "live")
    except ApiError:
        return 0


def require_name(name: str) -> None:
    """Raise ApiError 422 `bad_corpus_name` for what can't name a corpus."""
    if not CORPUS_NAME.fullmatch(name):
        raise ApiError(
            422,
            "bad_corpus_name",
            f"'{name[:80]}' can't name a corpus: use 1 to 63 small letters, digits, "
            "'-' and '_', the first a letter or digit",
            param="name",
        )


def corpus_exists(name: str) -> ApiError:
    """The error for a corpus that is to be made where one is: 409."""
    return ApiError(
        409,
        "corpus_exists",
        f"there is a corpus '{name}' already: restore into another name, put the backup in its "
        "place with `?replace=true`, or delete it first",
    )


def _not_found(name: str) -> ApiError:
    return ApiError(
        404,
        "corpus_not_found",
        f"there is no corpus '{name}': create it with PUT /corpora/{name}, "
        "or load documents with `refdesk ingest`",
    )


_MADE_ANEW = ("model", "dimension", "chunker", "language", "chunk_tokens", "chunk_overlap")


def _require_same(cut: Cut, info: CorpusInfo) -> None:
    """Raise ApiError 409 where a corpus is made or set up in another way. Of its model the revision
    is whatever it is: a reindex brings it to today's."""
    spec = cut.spec
    wanted = {
        "model": cut.stamp.model,
        "dimension": cut.stamp.dimension,
        "chunker": cut.chunker,
        "description": spec.description or info.description,
        "language": spec.language,
        "chunk_tokens": spec.chunk_tokens,
        "chunk_overlap": spec.chunk_overlap,
        "curate": info.curate if spec.curate is None else spec.curate,
        "recency": spec.recency or info.recency,
        "readers": info.readers if spec.readers is None else spec.readers,
    }
    for name, value in wanted.items():
        found = getattr(info, name)
        if value != found:
            way = "reindex" if name in _MADE_ANEW else "corpora set"
            raise ApiError(
                409,
                "corpus_exists",
                f"corpus '{spec.name}' exists with {name} {found!r}, not {value!r}: change it with "
                f"`refdesk {way}`, leave {name} as it is, or take another name",
                param="embedder" if name == "model" else name,
            )
