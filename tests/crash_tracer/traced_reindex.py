"""`scripts/reindex.py`, traced and killed, again and again.

Importing it takes 2 s. So a process imports it once, and forks another for each run (`serve`); several of
these processes are run side by side (`TracedReindex`).
"""

from __future__ import annotations

import gc
import json
import os
import queue
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash_tracer import seccomp
from tests.crash_tracer.layout import role
from tests.crash_tracer.tracer import Step, Trace, TracingError, Verdict, trace
from tests.support.serving import ROOT, START_LIMIT_S, clean_environment

# Ten times what it takes on a busy machine.
_RUN_LIMIT_S = 120.0
# Longer than a run and its killing may take.
_ANSWER_LIMIT_S = 160.0


class Kind(NamedTuple):
    """The kind of a step: its system call, and the role of the file."""

    call: str
    role: str

    @property
    def is_in_staging(self) -> bool:
        """Tell whether the step changes what nobody reads yet."""
        return ".staging-" in self.role.split(" -> ")[-1]


def kind_of(step: Step) -> Kind:
    return Kind(step.call, role(step.path))


@dataclass(frozen=True)
class Kill:
    """The time to kill: before or after the `occurrence`-th step of a kind (from 1), or at a moment."""

    kind: Kind | None = None
    occurrence: int = 1
    after: bool = False
    after_s: float | None = None

    def __str__(self) -> str:
        if self.kind is None:
            return f"after {self.after_s:.3f} s"
        return f"{'after' if self.after else 'before'} {self.kind.call} {self.kind.role} #{self.occurrence}"


@dataclass(frozen=True)
class Run:
    """A reindex in the index directory `folder`.

    Attributes:
        watched: all its steps are told; else only those among which the one is at which it is to be killed.
    """

    folder: str
    environment: dict[str, str]
    log: str
    arguments: list[str] = field(default_factory=list)
    kill: Kill | None = None
    watched: bool = False

    @property
    def calls(self) -> Collection[str]:
        if self.watched:
            return seccomp.ALL
        return {self.kill.kind.call} if self.kill and self.kill.kind else ()


class TracedReindex:
    """Runs reindexes; may be used by as many threads at once as there are servers."""

    def __init__(self, servers: list[subprocess.Popen[str]]) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for server in servers:
            self._idle.put(server)

    def run(self, run: Run) -> Trace:
        """Run to its end, or until it is killed as `run.kill` says.

        Raises:
            TracingError: it did not end in time.
        """
        server = self._idle.get(timeout=_ANSWER_LIMIT_S)
        assert server.stdin is not None
        print(json.dumps(asdict(run)), file=server.stdin, flush=True)
        answer = _answer(server, _ANSWER_LIMIT_S)
        self._idle.put(server)
        if "error" in answer:
            raise TracingError(answer["error"])
        return Trace([Step(*step) for step in answer["steps"]], answer["status"], answer["seconds"])


@contextmanager
def traced_reindex(servers: int, folder: Path) -> Iterator[TracedReindex]:
    """Start that many servers, whose working directory is `folder`."""
    started = [_start(folder) for _ in range(servers)]
    try:
        for server in started:
            _answer(server, START_LIMIT_S)
        yield TracedReindex(started)
    finally:
        for server in started:
            server.kill()  # and with it all that it traces
            server.communicate()


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from tests.crash_tracer.traced_reindex import serve; serve()"],
        cwd=folder,
        # One thread: only the one that forks goes on in a forked process.
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _answer(server: subprocess.Popen[str], limit_s: float) -> dict[str, Any]:
    assert server.stdout is not None
    if not select.select([server.stdout], [], [], limit_s)[0]:
        server.kill()
        raise TracingError(f"no answer in {limit_s:g} s")
    line = server.stdout.readline()
    if not line:
        raise TracingError(f"the tracing process ended with {server.wait(10)}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def serve() -> None:
    """Answer each line of standard input, a `Run`, with a line about what it did."""
    from app.bootstrap.indexing import make_indexer  # noqa: PLC0415 - for the process that forks
    from app.embeddings.local import LocalEmbedding  # noqa: PLC0415

    _ = make_indexer, LocalEmbedding()
    # What is freed at its end need not be copied before: 0.2 s a run instead of 0.6.
    gc.freeze()
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        values = json.loads(line)
        kill = values.pop("kill")
        if kill and kill["kind"]:
            kill["kind"] = Kind(*kill["kind"])
        run = Run(**values, kill=Kill(**kill) if kill else None)
        try:
            answer = asdict(_traced(run))
        except TracingError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def _traced(run: Run) -> Trace:
    kill = run.kill or Kill()
    return trace(
        lambda: _reindex(run),
        Path(run.folder),
        calls=run.calls,
        on_step=_judge(kill),
        kill_after_s=kill.after_s,
        limit_s=_RUN_LIMIT_S,
    )


def _judge(kill: Kill) -> Callable[[Step], Verdict]:
    seen: Counter[Kind] = Counter()

    def judge(step: Step) -> Verdict:
        kind = kind_of(step)
        seen[kind] += 1
        if (kind, seen[kind]) != (kill.kind, kill.occurrence):
            return Verdict.GO
        return Verdict.KILL_AFTER if kill.after else Verdict.KILL_BEFORE

    return judge


def _reindex(run: Run) -> int:
    """Do as `python scripts/reindex.py` does, in this process."""
    from app.cli.reindex import main  # noqa: PLC0415 - for the process that forks

    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in enumerate((nothing, log, log)):
        os.dup2(target, number)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.environ.update(run.environment)
    return main(run.arguments)
