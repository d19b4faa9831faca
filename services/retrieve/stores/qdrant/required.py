"""What is needed of qdrant-client; it comes with the extra `qdrant`.

Whoever imports this package without it is told so. Imported only where a corpus in Qdrant is meant.
"""

from shared.errors import StartupError

try:
    from grpc import RpcError
    from qdrant_client import QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ImportError as error:
    raise StartupError(
        "corpora in Qdrant need the package qdrant-client: install the extra `qdrant` "
        "(in refdesk's folder: pip install -e '.[qdrant]')"
    ) from error

__all__ = [
    "QdrantClient",
    "QdrantException",
    "ResponseHandlingException",
    "RpcError",
    "UnexpectedResponse",
    "models",
]
