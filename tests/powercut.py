"""What a power cut would take: pages of a file that are in memory alone."""

import ctypes
import os
from pathlib import Path

import pytest

_CACHESTAT = 451  # a system call since Linux 6.5, of the same number on all machines


def unwritten_pages(path: Path) -> int:
    """How many pages of a file are not on the disk yet. Skips the test where nobody can say."""
    libc = ctypes.CDLL(None, use_errno=True)
    whole, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    handle = os.open(path, os.O_RDONLY)
    try:
        failed = libc.syscall(_CACHESTAT, handle, whole, found, 0)
    finally:
        os.close(handle)
    if failed:
        pytest.skip(f"the kernel does not tell dirty pages: {os.strerror(ctypes.get_errno())}")
    _, dirty, under_way, _, _ = found
    return int(dirty + under_way)


def require_told(folder: Path) -> None:
    """Skip the test where a file that was just written is not told as unwritten."""
    probe = folder / "probe"
    probe.write_bytes(b"x" * 10_000)
    told = unwritten_pages(probe)
    probe.unlink()
    if not told:
        pytest.skip("this file system keeps no unwritten pages")
