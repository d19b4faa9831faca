"""The process that does the work of `Workers`: `python -m services.retrieve.corpus.parsing.worker`.

It reads a function and its argument from the standard input and writes what came of it to the
standard output, again and again until the input ends. It holds no socket and no file of the service
and ends with it.
"""

import ctypes
import os
import pickle
import resource
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO

from shared.errors import ApiError

LENGTH = struct.Struct(">Q")
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Take the limit of memory in MiB from the command line, then work until the input ends."""
    _confine(int(sys.argv[1]) * 1024 * 1024)
    tasks, results = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not get in between.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for the life of the process
    _send(results, ("ready",))
    while head := tasks.read(LENGTH.size):
        message = tasks.read(LENGTH.unpack(head)[0])
        answer: tuple[object, ...]
        try:
            work, task = pickle.loads(message)  # noqa: S301 - from the service itself
            answer = ("done", work(task))
            _send(results, answer)
        except ApiError as error:
            _send(results, ("refused", error.status, error.code, error.message, error.param))
        except MemoryError:
            # What took the memory goes before the answer needs some; they are set anew above.
            task = answer = message = None  # type: ignore[assignment]  # set anew above
            _send(results, ("memory",))
        except Exception:  # a defect of a parser: this file is its only victim
            _send(results, ("fault", traceback.format_exc()))


def _confine(memory: int) -> None:
    """End with the service, write no files, and use at most so many bytes of memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    # RLIMIT_DATA counts what can be written to; address space that is merely reserved, which
    # threads and allocators do by the gigabyte, is not counted.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _send(results: BinaryIO, answer: Any) -> None:
    message = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
    results.write(LENGTH.pack(len(message)))
    results.write(message)
    results.flush()


if __name__ == "__main__":
    main()
