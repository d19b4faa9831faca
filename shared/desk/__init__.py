"""The Python client of the desk: corpora, documents and searches, sync and async.

Retrievers for other frameworks are beside it, each with an extra of its own: `langchain`,
`llamaindex`, `haystack`.
"""

from shared.desk.client import AsyncClient, Client
from shared.desk.errors import (
    AuthenticationError,
    BusyError,
    ConflictError,
    DeskError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    OutOfTimeError,
    RefusedError,
    ServerError,
    UnreachableError,
)
from shared.desk.models import (
    Corpus,
    Document,
    DocumentLine,
    DocumentPage,
    Dropped,
    Hit,
    Ingested,
    NewDocument,
    Position,
    Retrieved,
    Searched,
    Signals,
    Skipped,
    Twin,
    Verdict,
)

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "BusyError",
    "Client",
    "ConflictError",
    "Corpus",
    "DeskError",
    "Document",
    "DocumentLine",
    "DocumentPage",
    "Dropped",
    "ForbiddenError",
    "Hit",
    "Ingested",
    "InvalidRequestError",
    "NewDocument",
    "NotFoundError",
    "OutOfTimeError",
    "Position",
    "RefusedError",
    "Retrieved",
    "Searched",
    "ServerError",
    "Signals",
    "Skipped",
    "Twin",
    "UnreachableError",
    "Verdict",
]
