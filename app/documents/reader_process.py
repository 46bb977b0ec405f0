"""A process that reads files, one at a time, and that may hang, crash or be killed.

pebble's pool was not reliable enough: while its parent is busy, it blames a crash on another file, reports it
as a hang, or breaks. Of 200 files read by 2 of its workers beside 2 busy threads, 40 were made to crash: it
reported 21 of them, lost 8 good files to crashes, and another 31 when it broke.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Generic, TypeVar

from app.documents.extraction import READABLE_SUFFIXES
from app.documents.limits import (
    MB,
    ReadingLimits,
    check_size,
    is_out_of_memory,
    limit_memory,
    memory_of,
    time_limit,
)
from app.documents.pages import UnreadableError
from app.domain.document import DocumentStatus

T = TypeVar("T")

# The most memory that a process may keep between two files. A new one takes 90 MB, and allocators return
# little of what they took: after a docx of 90 MB inflated, 250 to 1,210 MB stayed.
_MOST_KEPT = 256 * MB


class ReaderProcess(Generic[T]):
    """The parent's side of a reader process, which `select` shows as readable when `result` is available.

    The process ends with its parent, even if that is killed.
    """

    def __init__(self, read: Callable[[Path, str], T], limits: ReadingLimits) -> None:
        self._limits = limits
        # Spawned, not forked: the parent may be the server, which has threads.
        context = multiprocessing.get_context("spawn")
        self._connection, connection = context.Pipe()
        self._messages, messages = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(connection, messages, read, limits), daemon=True)
        with _sigint_blocked():
            self._process.start()
        connection.close()
        messages.close()
        self._was_out_of_memory = False
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def is_fit(self) -> bool:
        """True if the process is alive and does not hold too much memory."""
        return self._process.is_alive() and memory_of(self._process.pid).resident <= _MOST_KEPT

    def start(self, path: Path, name: str) -> None:
        """Begin to read a file; `name` is passed on to `read`."""
        self._was_out_of_memory = False
        # `result` reports a process that has just died.
        with suppress(OSError):
            self._connection.send((path, name))

    def result(self) -> T:
        """Wait for the content that `read` returns.

        Raises:
            UnreadableError: the file cannot be read, or the process died.
        """
        try:
            answer: T | UnreadableError = self._connection.recv()
        except (EOFError, OSError):
            answer = self._cause_of_death()
        if isinstance(answer, UnreadableError):
            raise answer
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._listener.join()
        self._connection.close()
        self._messages.close()

    def _listen(self) -> None:
        """Search the parsers' output for signs of a lack of memory, until the process ends."""
        last = b""
        while output := os.read(self._messages.fileno(), 64 * 1024):
            last = last[-100:] + output
            self._was_out_of_memory |= is_out_of_memory(last.decode("utf-8", "replace"))

    def _cause_of_death(self) -> UnreadableError:
        self._process.join()
        self._listener.join()
        code = self._process.exitcode
        if code == -signal.SIGALRM:
            return UnreadableError(
                DocumentStatus.TIMED_OUT,
                f"reading it took longer than PARSE_TIMEOUT_S ({self._limits.timeout_s:g} s)",
            )
        if self._was_out_of_memory:
            return _needs_memory(self._limits)
        cause = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return UnreadableError(
            DocumentStatus.CRASHED,
            f"the parser crashed on it ({cause}), or ran out of memory: of the machine's, or of "
            f"PARSE_MEMORY_MB ({self._limits.memory_mb} MB)",
        )


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT for processes started in the block, even while they import: the parent handles Ctrl-C."""
    # First, since starting Python's resource tracker unblocks the signal.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _serve(
    connection: Connection, messages: Connection, read: Callable[[Path, str], T], limits: ReadingLimits
) -> None:
    """Read files until the parent ends: the child's side."""
    Thread(target=_end_with_parent, daemon=True).start()
    # Native libraries bypass sys.stderr. The parent reads their output to find the cause of a crash.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(messages.fileno(), 2)
    messages.close()
    # Without this, Rust resolves function names for a backtrace, which takes memory when there is none.
    os.environ["RUST_BACKTRACE"] = "0"
    # The parent may have set another handler or blocked the signal.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    while True:
        path, name = connection.recv()
        limit_memory(limits.memory_mb)
        connection.send_bytes(_answer(read, path, name, limits))


def _end_with_parent() -> None:
    """End this process with its parent, even if that is killed; parsers release the GIL for this thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this is a child
    parent.join()
    os._exit(1)


def _answer(read: Callable[[Path, str], T], path: Path, name: str, limits: ReadingLimits) -> bytes:
    """Read a file, and return its content or an UnreadableError, pickled."""
    try:
        with time_limit(limits.timeout_s):
            if path.suffix.lower() in READABLE_SUFFIXES:
                check_size(path, limits.inflated_mb)
            answer = pickle.dumps(read(path, name))
        if len(answer) <= limits.answer_bytes:
            return answer
        refusal = UnreadableError(
            DocumentStatus.TOO_LARGE,
            f"its text takes more than {limits.answer_bytes // MB} MB, an eighth of MAX_INFLATED_MB",
        )
    except UnreadableError as error:
        refusal = error
    except BaseException as error:  # noqa: BLE001 - a process boundary: whatever a parser raises is this file's problem
        refusal = UnreadableError(
            DocumentStatus.UNREADABLE, f"the parser failed on it: {type(error).__name__}: {error}"[:300]
        )
        if isinstance(error, MemoryError) or is_out_of_memory(str(error)):
            refusal = _needs_memory(limits)
    return pickle.dumps(refusal)


def _needs_memory(limits: ReadingLimits) -> UnreadableError:
    return UnreadableError(
        DocumentStatus.TOO_LARGE, f"reading it needs more memory than PARSE_MEMORY_MB ({limits.memory_mb} MB)"
    )
