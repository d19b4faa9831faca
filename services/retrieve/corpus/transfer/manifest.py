"""What a backup says of itself, and the checksum over all that is in it."""

import hashlib
import json
import sqlite3
from dataclasses import asdict, dataclass
from datetime import datetime

from services.retrieve.stores.local import meta

ROW = "manifest"  # of the table `meta`
# `changes` and `checksum` follow with every change of a row, that of the manifest, too.
_SETTINGS = (
    f"SELECT name, value FROM meta WHERE name NOT IN ('{ROW}', 'changes', 'checksum')"  # noqa: S608 - a constant
    " ORDER BY name"
)
_TABLES = (
    "SELECT * FROM documents ORDER BY number",
    "SELECT * FROM restricted ORDER BY document",
    "SELECT * FROM chunks ORDER BY key",
    "SELECT * FROM vectors ORDER BY key",
    "SELECT * FROM sparse_vectors ORDER BY key",
)
# All that a corpus is made of; what else there is in its database is derived from these. The key of
# a part is in the sum, too: it stays as it is, or no backup that was made before is believed.
_PARTS = {
    "SELECT name, value FROM meta WHERE name NOT IN ('manifest', 'checksum') ORDER BY name": (
        _SETTINGS
    ),
    **dict(zip(_TABLES, _TABLES, strict=True)),
}


@dataclass(frozen=True)
class Manifest:
    """The row that makes a corpus's database a backup. name: the corpus's. refdesk: the version
    that made it. sha256: over the rows of the corpus, see `content_sha256`."""

    name: str
    made_at: datetime
    refdesk: str
    documents: int
    chunks: int
    sha256: str


def content_sha256(db: sqlite3.Connection) -> str:
    """Hex SHA-256 over every row of a corpus, whatever the pages that SQLite keeps them in."""
    found = hashlib.sha256()
    for label, query in _PARTS.items():
        found.update(label.encode())
        for row in db.execute(query):
            # Bytes as they are, after a line with their lengths and all other fields.
            blobs = [field for field in row if type(field) is bytes]
            told = [len(field) if type(field) is bytes else field for field in row]
            found.update(f"{len(blobs)} {told!r}\n".encode("utf-8", "surrogatepass"))
            for blob in blobs:
                found.update(blob)
    return found.hexdigest()


def put(db: sqlite3.Connection, manifest: Manifest) -> None:
    """Make a corpus's database a backup."""
    told = asdict(manifest) | {"made_at": manifest.made_at.isoformat(timespec="seconds")}
    meta.write(db, {ROW: json.dumps(told, ensure_ascii=False)})


def read(db: sqlite3.Connection) -> Manifest | None:
    """What a backup says of itself; None where it is no backup. Raises ValueError for what can't
    be what `put` has written."""
    row = meta.read(db).get(ROW)
    if row is None:
        return None
    told = json.loads(row)
    try:
        return Manifest(
            name=str(told["name"]),
            made_at=datetime.fromisoformat(told["made_at"]),
            refdesk=str(told["refdesk"]),
            documents=int(told["documents"]),
            chunks=int(told["chunks"]),
            sha256=str(told["sha256"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"its manifest can't be read ({error})") from None
