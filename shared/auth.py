"""API keys from a file, and the principal that a request acts for.

The file is JSON: ``{"keys": [{"name", "sha256", "role", "services", "corpora", "tiers",
"groups"}]}``. It holds the SHA-256 of each key, never the key; ``refdesk keys new NAME`` makes an
entry. Keys are 256 random bits, so a fast hash is as good as a slow one here.
"""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ApiError, StartupError

Role = Literal["admin", "reader"]
GroupName = Annotated[str, Field(min_length=1, max_length=128)]
EVERYTHING = frozenset({"*"})


@dataclass(frozen=True)
class Principal:
    """Who a request acts for: a name for logs and ledgers, and what it may do.

    tiers: of writers, those that may answer it; None for all.
    """

    name: str
    role: Role
    services: frozenset[str] = EVERYTHING
    corpora: frozenset[str] = EVERYTHING
    groups: frozenset[str] = frozenset()
    tiers: frozenset[str] | None = None

    @property
    def readers(self) -> frozenset[str] | None:
        """The names that open a document that names its readers: its own and its groups'.

        None opens every document of the corpora that it may read: an admin's.
        """
        return None if self.role == "admin" else self.groups | {self.name}

    def may_use(self, service: str) -> bool:
        """Whether this principal may call `service` at all."""
        return "*" in self.services or service in self.services

    def may_read(self, corpus: str) -> bool:
        """Whether this principal may search `corpus` and see its documents."""
        return "*" in self.corpora or corpus in self.corpora

    def may_write(self, corpus: str) -> bool:
        """Whether this principal may change `corpus`."""
        return self.role == "admin" and self.may_read(corpus)

    def require_read(self, corpus: str) -> None:
        """Raise the ApiError 404 of a corpus that is not there unless `may_read`."""
        if not self.may_read(corpus):
            message = f"there is no corpus '{corpus}' that this key may read"
            raise ApiError(404, "corpus_not_found", message)

    def require_write(self, corpus: str) -> None:
        """Raise a 403 ApiError unless `may_write`."""
        if not self.may_write(corpus):
            raise ApiError(403, "forbidden_write", f"this key may not change corpus '{corpus}'")


NOBODY = Principal("nobody", "reader", frozenset(), frozenset())
LOCAL = Principal("local", "admin")  # everyone on this machine, while no keys are set


class KeyEntry(BaseModel):
    """One key of the file: its holder, the SHA-256 of the key in hex, and its scope."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=128)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    role: Role = "reader"
    services: list[str] = ["*"]
    corpora: list[str] = ["*"]
    tiers: list[str] = ["*"]
    groups: Annotated[list[GroupName], Field(max_length=1000)] = []

    @property
    def principal(self) -> Principal:
        """Who a request with this key acts for."""
        return Principal(
            self.name,
            self.role,
            frozenset(self.services),
            frozenset(self.corpora),
            frozenset(self.groups),
            None if "*" in self.tiers else frozenset(self.tiers),
        )


class KeyFile(BaseModel):
    """All keys that a service accepts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[KeyEntry]

    @classmethod
    def read(cls, path: Path) -> "KeyFile":
        """Read the file. Raises StartupError that names the file and what is wrong in it."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise StartupError(f"can't read the keys file {path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise StartupError(
                f"the keys file {path} is wrong at {where}: {first['msg']}"
            ) from None

    def find(self, authorization: str | None) -> Principal | None:
        """The principal whose key the header carries (``Bearer KEY`` or the bare key), or None."""
        if not authorization:
            return None
        scheme, _, rest = authorization.strip().partition(" ")
        # Some clients send their token without the word Bearer.
        key = rest.strip() if scheme.lower() == "bearer" else authorization.strip()
        digest = hash_key(key)
        for entry in self.keys:
            if hmac.compare_digest(entry.sha256, digest):
                return entry.principal
        return None

    def callers(self, service: str, *, but: str | None) -> frozenset[str]:
        """The names of those who may use `service`. but: a key of no caller: the service's own."""
        own = hash_key(but) if but else None
        entitled = (entry for entry in self.keys if entry.principal.may_use(service))
        return frozenset(entry.name for entry in entitled if entry.sha256 != own)


def hash_key(key: str) -> str:
    """SHA-256 of an API key, in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
