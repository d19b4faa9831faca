"""The models of the service: each loaded when it is first asked for, within a limit of memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from services.embed.cache import VectorCache
from services.embed.engine import Engine
from services.embed.models.base import Backend, ModelInfo
from services.embed.models.opening import open_model, stored_bytes
from shared.errors import ApiError, StartupError
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

LOADED = Gauge("refdesk_embed_models_loaded", "Models that are loaded")
BYTES = Gauge("refdesk_embed_model_bytes", "Bytes of a loaded model's weights", ["model"])
LOADS = Counter("refdesk_embed_model_loads", "Times that a model was loaded", ["model", "result"])
UNLOADS = Counter("refdesk_embed_model_unloads", "Times that a model was unloaded", ["model"])

_MIB = 1024 * 1024
# A model that can't be loaded is not tried again for so long: each try may unload others for it.
_TRY_AGAIN_S = 30.0


@dataclass(eq=False)
class _Place:
    """A model that the service knows.

    nbytes: what it takes in memory; until it was loaded once, what it may take. info: as it was
    when it was last loaded. engine: while it is loaded. loading: while it is being loaded. error:
    why the last try failed, and failed: when. users: requests in flight. used: when the last one
    ended.
    """

    name: str
    backend: Backend
    nbytes: int = 0
    info: ModelInfo | None = None
    engine: Engine | None = None
    loading: asyncio.Task[None] | None = None
    error: str = ""
    failed: float = 0.0
    users: int = 0
    used: float = 0.0


class ModelPool:
    """The models that requests can name, and the default one for those that name none.

    A model is loaded once, however many ask for it at the same time. Before that, models that no
    request uses are unloaded, the least recently used first, until it fits. While it waits for one
    that is in use, later requests wait behind it, so that it gets its turn. A model that can't be
    loaded costs the requests for it a 503 and no other, and is tried again half a minute later.
    Used from one event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        backends = {settings.embed_model: settings.embed_backend}
        for name, backend in settings.embed_models.items():
            backends[name] = backend or settings.embed_backend
        self._places = {name: _Place(name, backend) for name, backend in backends.items()}
        self._default = self._places[settings.embed_model]
        self._limit = settings.embed_memory_mb * _MIB or float("inf")
        self._cache = VectorCache(settings)
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()  # a request has ended, or a load
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """The models that a request can name, the default one first."""
        return list(self._places)

    async def start(self) -> None:
        """Load the default model. Raises StartupError where it can't be served."""
        await self._open(self._default)

    @asynccontextmanager
    async def use(self, name: str | None = None) -> AsyncIterator[Engine]:
        """A loaded model, which stays so until the end of the block. None: the default one.

        Raises ApiError 404 for a name that is not known, 503 where the model can't be loaded.
        """
        place = self._find(name)
        async with self._turn:
            if place.error and time.monotonic() < place.failed + _TRY_AGAIN_S:
                raise _unavailable(place, place.error)
            if place.engine is None and place.loading is None:
                await self._make_room(place)
                # In a context of its own: it is not bound to the deadline of who asked first.
                place.loading = asyncio.create_task(self._load(place), context=Context())
            place.users += 1
        try:
            if place.loading is not None:
                await asyncio.shield(place.loading)  # the others wait on, whoever leaves
            if place.engine is None:
                raise _unavailable(place, place.error)
            yield place.engine
        finally:
            place.used = time.monotonic()
            self._release(place)
            await self._shrink()

    async def info(self, name: str | None = None) -> ModelInfo:
        """A model as it was when it was last loaded, which it is now if it never was.

        Raises as `use`.
        """
        place = self._find(name)
        if place.info is not None:
            return place.info
        async with self.use(name) as engine:
            return engine.info

    async def prove(self) -> ModelInfo:
        """Run the default model, or, where it was unloaded for others, the last used of them.

        A health check so changes nothing about what is loaded. The default model's info. Raises
        whatever the model does.
        """
        loaded = [place for place in self._places.values() if place.engine is not None]
        if not loaded:
            places = self._places.values()
            coming = next((place for place in places if place.loading), self._default)
            async with self.use(coming.name) as engine:
                await engine.prove()
            return await self.info()
        by_use = max(loaded, key=lambda place: place.used)
        place = self._default if self._default in loaded else by_use
        assert place.engine is not None  # noqa: S101 - as chosen
        place.users += 1
        try:
            await place.engine.prove()
        finally:
            self._release(place)
        return await self.info()

    async def close(self) -> None:
        """Let go of all models and of the cache."""
        for place in self._places.values():
            if place.loading is not None:
                place.loading.cancel()
            if place.engine is not None:
                await self._unload(place)
        await self._cache.close()

    def _find(self, name: str | None) -> _Place:
        if name is None:
            return self._default
        if name not in self._places:
            message = f"there is no model '{name}' here; there is: {', '.join(self._places)}"
            raise ApiError(404, "unknown_model", message, param="model")
        return self._places[name]

    def _release(self, place: _Place) -> None:
        place.users -= 1
        self._left.set()

    async def _make_room(self, place: _Place) -> None:
        """Unload models until this one fits, or no other is left; waits for those in use."""
        if place.info is None:
            place.nbytes = await asyncio.to_thread(
                stored_bytes, place.name, place.backend, self._settings
            )
        else:
            self._require_fit(place)
        while self._taken() + place.nbytes > self._limit:
            if await self._unload_idle():
                continue
            if not self._taken():
                return
            self._left.clear()
            await self._left.wait()

    def _taken(self) -> int:
        """Bytes of the models that are loaded or being loaded."""
        places = self._places.values()
        return sum(place.nbytes for place in places if place.engine or place.loading)

    async def _unload_idle(self) -> bool:
        """Unload the least recently used model that no request uses; False where there is none."""
        idle = [
            place
            for place in self._places.values()
            if place.engine and place.nbytes and not place.users
        ]
        if idle:
            await self._unload(min(idle, key=lambda place: place.used))
        return bool(idle)

    async def _unload(self, place: _Place) -> None:
        assert place.engine is not None  # noqa: S101 - what the callers see to
        engine, place.engine = place.engine, None
        LOADED.dec()
        BYTES.remove(place.name)
        UNLOADS.labels(place.name).inc()
        log.info("model_unloaded", model=place.name)
        # Shielded: it must come to its end even where the request that needed the room is gone.
        closing = asyncio.create_task(engine.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    async def _load(self, place: _Place) -> None:
        """Load the model, or note the error that those who wait for it get."""
        try:
            await self._open(place)
        except (StartupError, ApiError) as error:
            place.error, place.failed = str(error), time.monotonic()
        except Exception as error:  # whatever a library raises over a model that it can't read
            log.exception("model_failed", model=place.name, error=type(error).__name__)
            place.error = f"{type(error).__name__}; the log of embed says more"
            place.failed = time.monotonic()
        finally:
            place.loading = None
            self._left.set()
        await self._shrink()

    async def _shrink(self) -> None:
        """Unload what is idle while the models take more than the limit: a model may take more than
        its files, and those in use had to stay."""
        while self._taken() > self._limit and await self._unload_idle():
            pass

    async def _open(self, place: _Place) -> None:
        """Load the model into its place. Raises StartupError and what libraries raise."""
        started = time.perf_counter()
        try:
            model = await open_model(place.name, place.backend, self._settings)
            engine = Engine(model, self._cache)
            place.nbytes, place.info = engine.nbytes, engine.info
            try:
                self._require_fit(place)
            except ApiError as error:
                await engine.close()
                raise StartupError(error.message) from None
        except Exception:
            LOADS.labels(place.name, "failed").inc()
            raise
        place.engine = engine
        place.error = ""
        place.used = time.monotonic()
        LOADS.labels(place.name, "ok").inc()
        LOADED.inc()
        BYTES.labels(place.name).set(engine.nbytes)
        seconds = round(time.perf_counter() - started, 2)
        log.info("model_loaded", model=place.name, bytes=engine.nbytes, seconds=seconds)

    def _require_fit(self, place: _Place) -> None:
        """Raises ApiError 503 where the model alone takes more than the limit."""
        if place.nbytes > self._limit:
            raise _unavailable(
                place,
                f"it takes {place.nbytes / _MIB:.0f} MiB, and REFDESK_EMBED_MEMORY_MB allows "
                f"{self._settings.embed_memory_mb}",
            )


def _unavailable(place: _Place, reason: str) -> ApiError:
    message = f"the model {place.name} can't be loaded: {reason}"
    return ApiError(503, "model_unavailable", message, param="model")
