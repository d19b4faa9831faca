"""The connection to a Qdrant server: how it is made, and what goes wrong with it in the words of
the one error shape.

Nothing is tried twice here: who asks again is told after how long (`Retry-After`), and every write
may be repeated as it is.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from services.retrieve.stores.qdrant.required import (
    QdrantClient,
    QdrantException,
    ResponseHandlingException,
    RpcError,
    UnexpectedResponse,
)
from shared.context import current
from shared.errors import ApiError, StartupError
from shared.settings import Settings

MEMORY = ":memory:"  # in the place of an address: qdrant-client's own mode, gone with the process
_RETRY_S = 5
_FULL = ("no space left", "disk is full", "out of disk", "disk quota")
_STRANGE = "it answered what this refdesk does not understand"


@dataclass(frozen=True)
class Layout:
    """How collections are made. consistency: how many replicas must have a write before it counts.
    quantised: whether vectors are searched as bytes, kept in memory, and scored anew as floats from
    the disk. prefix: what the names of collections and aliases begin with."""

    prefix: str = "refdesk"
    shards: int = 1
    replicas: int = 1
    consistency: int = 1
    on_disk: bool = False
    quantised: bool = False


class Link:
    """A client of one Qdrant, for any number of threads."""

    def __init__(
        self,
        client: QdrantClient,
        layout: Layout,
        *,
        timeout_s: int = 30,
        in_process: bool = False,
    ) -> None:
        """in_process: for qdrant-client's mode without a server, which knows no threads, and keeps
        nothing beyond this process."""
        self.client = client
        self.layout = layout
        self._timeout_s = timeout_s
        self.in_process = in_process
        self._turn = threading.RLock() if in_process else nullcontext()

    @contextmanager
    def call(self, what: str) -> Iterator[int]:
        """A call of the client's, within the block. Gives the whole seconds that it may take: what
        is left of the request's deadline, at most the setting.

        Raises ApiError 503 `store_unavailable` where Qdrant can't be reached, is too slow, or
        refuses; 507 `storage_full`; 500 `corpus_damaged` where a collection is missing; 504 where
        the deadline has passed.
        """
        deadline = current().deadline
        deadline.check()
        seconds = max(1, math.ceil(min(self._timeout_s, deadline.remaining_ms() / 1000)))
        try:
            with self._turn:
                yield seconds
        except QdrantException as error:  # 429, whatever its Retry-After is
            raise _unavailable(f"{what}: it is overloaded", error) from error
        except UnexpectedResponse as error:
            raise _refused(what, error.status_code or 502, _reason(error)) from error
        except ResponseHandlingException as error:
            # The reason may repeat an address, never a key: that is a header.
            source = error.source
            told = _STRANGE if isinstance(source, ValueError) else f"can't be reached ({source})"
            raise _unavailable(f"{what}: {told}", source) from error
        except (ValueError, KeyError, AssertionError, RecursionError) as error:
            # An answer that is no JSON, or not the one that was asked for: a proxy's page, say.
            raise _unavailable(f"{what}: {_STRANGE}", error) from error
        except RpcError as error:
            raise _of_grpc(what, error) from error

    def close(self) -> None:
        """Let go of connections."""
        self.client.close()


def connect(settings: Settings) -> Link:
    """The link that the settings describe; nothing is sent yet.

    Raises StartupError where they name no address.
    """
    layout = Layout(
        prefix=settings.qdrant_prefix,
        shards=settings.qdrant_shards,
        replicas=settings.qdrant_replicas,
        consistency=settings.qdrant_write_consistency,
        on_disk=settings.qdrant_on_disk,
        quantised=settings.qdrant_quantised,
    )
    if settings.qdrant_url == MEMORY:
        return Link(QdrantClient(MEMORY), layout, in_process=True)
    key = settings.qdrant_api_key
    try:
        client = QdrantClient(
            url=settings.qdrant_url,
            api_key=key.get_secret_value() if key else None,
            prefer_grpc=settings.qdrant_grpc,
            grpc_port=settings.qdrant_grpc_port,
            timeout=settings.qdrant_timeout_s,
            check_compatibility=False,  # asks the server; it may be down while we start
        )
    except ValueError as error:
        raise StartupError(
            f"REFDESK_QDRANT_URL is no address ({error}): set it to one such as "
            "https://qdrant.example:6333"
        ) from None
    return Link(client, layout, timeout_s=settings.qdrant_timeout_s)


def _refused(what: str, status: int, reason: str) -> ApiError:
    if any(word in reason.lower() for word in _FULL) or status == 507:
        return ApiError(
            507,
            "storage_full",
            f"{what}: Qdrant's disk took no more data; nothing was changed: free space there and "
            "try again",
        )
    if status in (401, 403):
        return _unavailable(f"{what}: it refused the key; set REFDESK_QDRANT_API_KEY", reason)
    if status == 404:
        return ApiError(
            500,
            "corpus_damaged",
            f"{what}: Qdrant misses what the catalogue names ({reason}): restore its collections "
            "from a snapshot, or delete this corpus and load its documents again",
        )
    return _unavailable(f"{what}: it answered {status} ({reason})", reason)


def _of_grpc(what: str, error: Exception) -> ApiError:
    code = getattr(error, "code", lambda: None)()
    reason = str(getattr(error, "details", lambda: error)())[:200]
    statuses = {"NOT_FOUND": 404, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
    return _refused(what, statuses.get(getattr(code, "name", ""), 502), reason)


def _unavailable(told: str, cause: object) -> ApiError:
    error = ApiError(
        503,
        "store_unavailable",
        f"the vector store: {told}; try again, or see docs/operations/qdrant.md",
        headers={"Retry-After": str(_RETRY_S)},
    )
    error.add_note(str(cause)[:500])
    return error


def _reason(error: Exception) -> str:
    content = getattr(error, "content", b"") or b""
    return bytes(content)[:200].decode("utf-8", "replace")
