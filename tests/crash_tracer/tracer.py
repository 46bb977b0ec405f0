"""Run something in a process of its own, see each step by which it changes files, and kill it at one of them.

A tracer by ptrace, as strace and gdb are, in Python alone: it follows all threads and children. A filter
(`tests.crash_tracer.seccomp`) makes the kernel stop them only at system calls that change files, before they
take place. Writes into mapped memory are no system calls, and not seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from tests.crash_tracer import seccomp
from tests.crash_tracer.ptrace import (
    CONT,
    EVENT_SECCOMP,
    OPTIONS,
    SEIZE,
    SYSCALL,
    SYSCALL_STOP,
    adopt_orphans,
    events,
    kill_process,
    ptrace,
    resume,
    ticking,
)
from tests.crash_tracer.stopped_call import stopped_call

_ROOT = Path(__file__).resolve().parents[2]
_KILL_LIMIT_S = 20.0


class TracingError(Exception):
    """The run took too long, did what cannot be followed, or this system permits no tracing."""


class Step(NamedTuple):
    """A system call that is about to change something below the watched folder.

    Attributes:
        path: from the folder; of a rename both, as "old -> new".
    """

    call: str
    path: str


class Verdict(Enum):
    GO = "go"
    KILL_BEFORE = "before"
    KILL_AFTER = "after"


def reason_not_to_trace() -> str | None:
    """Return why nothing can be traced here; None if it can."""
    if seccomp.MACHINE is None:
        return "tracing is written for Linux on x86_64 and aarch64"
    probe = "from pathlib import Path; from tests.crash_tracer.tracer import trace; trace(lambda: 0, Path())"
    tried = subprocess.run(
        [sys.executable, "-c", probe], cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return None if tried.returncode == 0 else f"nothing can be traced here: {tried.stderr.splitlines()[-1:]}"


@dataclass
class Trace:
    """The steps of a run, and how it ended.

    Attributes:
        status: the exit status, negative for a signal's; None if it was killed.
    """

    steps: list[Step] = field(default_factory=list)
    status: int | None = None
    seconds: float = 0.0


def trace(
    work: Callable[[], int],
    folder: Path,
    *,
    calls: Collection[str] = seccomp.ALL,
    on_step: Callable[[Step], Verdict] = lambda _: Verdict.GO,
    kill_after_s: float | None = None,
    limit_s: float = 60.0,
) -> Trace:
    """Run `work` in a forked process until all that it started has ended, or has been killed.

    The calling process must have one thread and no children. In the forked one, this call ends with
    SystemExit and what `work` returned: let it pass.

    Args:
        calls: the kinds of system calls that count as steps. Each takes two switches between processes, which
            makes a reindex twice as slow where other processes wait for a processor.
        on_step: told of each step below `folder` before it takes place.
        kill_after_s: when to kill it, whatever it does then.

    Raises:
        TracingError: all was killed before it is raised.
    """
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "only the thread that forks would go on in the forked process"
    adopt_orphans()
    gate, opener = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(opener)
        os.read(gate, 1)
        os.close(gate)
        seccomp.install(calls)
        sys.exit(work())
    os.close(gate)
    tracer = _Tracer(process, folder.resolve(), on_step)
    with ticking():
        try:
            tracer.seize(opener)
            tracer.follow(kill_after_s, limit_s)
        finally:
            tracer.kill_all()
    return tracer.trace


class _Tracer:
    def __init__(self, process: int, folder: Path, on_step: Callable[[Step], Verdict]) -> None:
        self.trace = Trace()
        self._process = process
        self._folder = str(folder)
        self._on_step = on_step
        self._threads = {process}
        self._started = time.monotonic()

    def seize(self, opener: int) -> None:
        """Begin to trace the process, and let it pass its gate."""
        try:
            ptrace(SEIZE, self._process, 0, OPTIONS)
        except OSError as error:
            raise TracingError(f"ptrace is not permitted here: {error}") from None
        finally:
            os.close(opener)

    def follow(self, kill_after_s: float | None, limit_s: float) -> None:
        """Follow the process until nothing of it is left, or it is to be killed."""
        for happened in events():
            if happened is not None:
                self._note(*happened)
            passed = time.monotonic() - self._started
            if passed > limit_s:
                raise TracingError(f"not done after {limit_s:g} s: {self._state()}")
            if kill_after_s is not None and passed >= kill_after_s:
                break
            if happened is not None and not self._goes_on(*happened):
                break
        self.trace.seconds = time.monotonic() - self._started

    def _state(self) -> str:
        """Say how far it is, and what its threads wait for."""
        waiting = []
        for thread in self._threads:
            with suppress(OSError):
                about = dict(
                    line.split(":", 1) for line in Path(f"/proc/{thread}/status").read_text().splitlines()
                )
                where = Path(f"/proc/{thread}/wchan").read_text()
                waiting.append(f"{thread} {about['Name'].strip()} {about['State'].strip()} {where}")
        return f"{len(self.trace.steps)} steps, the last {self.trace.steps[-1:]}, threads {waiting}"

    def kill_all(self) -> None:
        """Kill all threads that were seen, and all that show up while they end."""
        deadline = time.monotonic() + _KILL_LIMIT_S
        for thread in self._threads:
            kill_process(thread)
        for happened in events():
            if happened is not None and os.WIFSTOPPED(happened[1]):
                kill_process(happened[0])
            if time.monotonic() > deadline:
                raise TracingError("what was killed does not end")

    def _note(self, thread: int, status: int) -> None:
        if os.WIFSTOPPED(status):
            self._threads.add(thread)
            return
        self._threads.discard(thread)
        if thread == self._process:
            self.trace.status = os.waitstatus_to_exitcode(status)

    def _goes_on(self, thread: int, status: int) -> bool:
        """Let a stopped thread run on; False if all is to be killed."""
        if not os.WIFSTOPPED(status):
            return True
        number, event = os.WSTOPSIG(status), status >> 16
        if event == EVENT_SECCOMP:
            return self._at_call(thread)
        if number == SYSCALL_STOP:  # the end of the call after which to kill
            return False
        resume(thread, 0 if event else number)
        return True

    def _at_call(self, thread: int) -> bool:
        verdict = Verdict.GO
        with suppress(FileNotFoundError, ProcessLookupError):  # killed meanwhile, by its own parent for one
            if (step := self._step(thread)) is not None:
                verdict = self._on_step(step)
                self.trace.steps.append(step)
        if verdict is Verdict.KILL_BEFORE:
            return False
        resume(thread, request=SYSCALL if verdict is Verdict.KILL_AFTER else CONT)
        return True

    def _step(self, thread: int) -> Step | None:
        call = stopped_call(thread)
        if call.name == "io_uring_setup":
            raise TracingError("it writes through io_uring, where no tracer sees it")
        if not any(self._is_inside(path) for path in call.paths) or call.changes_nothing:
            return None
        return Step(call.name, " -> ".join(os.path.relpath(path, self._folder) for path in call.paths))

    def _is_inside(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self._folder}/") and not path.endswith(" (deleted)")
