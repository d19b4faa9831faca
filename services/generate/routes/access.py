"""Routes for those who run the service."""

from shared.context import current
from shared.errors import ApiError


def require_admin(what: str) -> None:
    """Raise a 403 ApiError unless the caller is an admin. what: that only admins may see."""
    if current().principal.role != "admin":
        raise ApiError(403, "forbidden_admin", f"this key may not see {what}: an admin's may")
