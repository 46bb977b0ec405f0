"""The calls of ptrace by which a process and its descendants are followed from stop to stop."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.crash_tracer.seccomp import LIBC

CONT, SYSCALL, SEIZE, GET_SYSCALL_INFO = 7, 24, 0x4206, 0x420E
EVENT_SECCOMP = 7
SYSCALL_STOP = signal.SIGTRAP | 0x80
# TRACESYSGOOD, -FORK, -VFORK, -CLONE, -EXEC, -SECCOMP; EXITKILL: nothing outlives the tracer.
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000

_WALL = 0x40000000
_PR_SET_CHILD_SUBREAPER = 36
# A wait is interrupted as often, to see what time it is.
_TICK_S = 0.002

LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request: int, thread: int, address: int, data: int) -> None:
    if LIBC.ptrace(request, thread, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def resume(thread: int, number: int = 0, *, request: int = CONT) -> None:
    with suppress(ProcessLookupError):  # it was killed
        ptrace(request, thread, 0, number)


def kill_process(thread: int) -> None:
    """Kill the whole process that a thread belongs to."""
    with suppress(ProcessLookupError):
        os.kill(thread, signal.SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent dies, so that it can wait for them."""
    LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def ticking() -> Iterator[None]:
    """Interrupt waits every few milliseconds, so that a tracer sees what time it is."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def events() -> Iterator[tuple[int, int] | None]:
    """Yield thread and status whenever one stops or ends, and None from time to time, until none is left.

    To be used within `ticking`.
    """
    status = ctypes.c_int()
    while True:
        thread = LIBC.waitpid(-1, ctypes.byref(status), _WALL)
        if thread > 0:
            yield thread, status.value
        elif ctypes.get_errno() == errno.EINTR:
            yield None
        else:
            return
