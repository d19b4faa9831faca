"""`python -m services.retrieve`: run the desk until it is told to stop."""

import ctypes
import sys

from services.retrieve.app import build
from shared.service import run

# A thread that waits for the interpreter gets it after so many seconds, instead of five times as
# many: a search waits several times while documents are cut and stored beside it.
_SWITCH_S = 0.001
# From this size on, bytes, memory that is let go of goes back to the system. glibc begins so, but
# keeps ever larger blocks once it has seen some let go of: five times as much by 50,000 documents.
_LARGE = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def _give_back_memory() -> None:
    """Ask the C library to keep no large blocks; one that does not know how goes on as it does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _LARGE)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


if __name__ == "__main__":
    sys.setswitchinterval(_SWITCH_S)
    _give_back_memory()
    run("retrieve", build)
