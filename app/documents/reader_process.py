"""A process that reads files, one at a time, and that may hang, crash or be killed.

Not one of pebble's pool: while the parent is busy, that takes the crash of one file for that of another, or
for a hang, or gives up. Of 200 files read by 2 of its workers beside 2 busy threads, 40 were made to crash:
it told 21 of them, lost 8 good files to them, and 31 when it broke.
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

# What a process may hold between two files. By itself it has 90 MB; allocators give back little of what was
# taken: after a docx of 90 MB inflated, 250 to 1,210 MB stayed.
_MOST_KEPT = 256 * MB


class ReaderProcess(Generic[T]):
    """The parent's side. Its file number is ready to be read when `result` is there.

    The process ends with its parent, whatever ends that.
    """

    def __init__(self, read: Callable[[Path, str], T], limits: ReadingLimits) -> None:
        self._limits = limits
        # Spawned, not forked: the server that may be our parent has threads.
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
        """Whether it lives, and does not hold much memory."""
        return self._process.is_alive() and memory_of(self._process.pid).resident <= _MOST_KEPT

    def start(self, path: Path, name: str) -> None:
        """Have a file read; `name` is for `read`."""
        self._was_out_of_memory = False
        # One that has just died is found out by `result`.
        with suppress(OSError):
            self._connection.send((path, name))

    def result(self) -> T:
        """What `read` made of the file; waits for it.

        Raises:
            UnreadableError: there is nothing; also if the process died.
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
        """Take in what parsers print, until the process ends."""
        last = b""
        while said := os.read(self._messages.fileno(), 64 * 1024):
            last = last[-100:] + said
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
        how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return UnreadableError(
            DocumentStatus.CRASHED,
            f"the parser crashed on it ({how}), or it needs more memory than there is, or than "
            f"PARSE_MEMORY_MB ({self._limits.memory_mb} MB)",
        )


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """What is started meanwhile never hears Ctrl-C, even while it imports: its parent handles that."""
    # Starting this helper of Python's own lifts the block.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    connection: Connection, messages: Connection, read: Callable[[Path, str], T], limits: ReadingLimits
) -> None:
    """The process's side."""
    Thread(target=_end_with_parent, daemon=True).start()
    # The parsers' native libraries print past Python: to the parent, who looks for why they crashed.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(messages.fileno(), 2)
    messages.close()
    # Looking for the names of functions takes memory when there is none.
    os.environ["RUST_BACKTRACE"] = "0"
    # A parent may have left it otherwise.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    while True:
        path, name = connection.recv()
        limit_memory(limits.memory_mb)
        connection.send_bytes(_answer(read, path, name, limits))


def _end_with_parent() -> None:
    """Also with one that was killed. Parsers let go of Python's lock: this thread can run beside them."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this is a child
    parent.join()
    os._exit(1)


def _answer(read: Callable[[Path, str], T], path: Path, name: str, limits: ReadingLimits) -> bytes:
    """What comes of reading a file, or an UnreadableError, pickled."""
    try:
        with time_limit(limits.timeout_s):
            if path.suffix.lower() in READABLE_SUFFIXES:
                check_size(path, limits.inflated_mb)
            answer = pickle.dumps(read(path, name))
        if len(answer) <= limits.answer_bytes:
            return answer
        refusal = UnreadableError(
            DocumentStatus.TOO_LARGE,
            f"what was read of it has more than {limits.answer_bytes // MB} MB, an eighth of MAX_INFLATED_MB",
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
