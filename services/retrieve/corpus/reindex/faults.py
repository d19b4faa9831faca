"""Why a generation did not take over."""

from shared.errors import ApiError


def refused(name: str, why: str) -> ApiError:
    """The error for a generation that is not to be served: 409."""
    return ApiError(
        409,
        "reindex_refused",
        f"the next generation of corpus '{name}' did not take over: {why}; the present one goes on",
    )
