"""The header Retry-After, in either of its forms (RFC 9110, section 10.2.3)."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(value: str) -> float:
    """Seconds to wait, of a number of them or of a date; 0.0 where it says nothing."""
    try:
        seconds = float(value)
        return 0.0 if math.isnan(seconds) else seconds
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, or one without a time zone
        return 0.0
