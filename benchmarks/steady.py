"""An open-loop load generator in a process of its own: questions at a constant rate, whatever the answers.

`python -m benchmarks.steady` reads a `Steady` as one line of JSON from standard input, sends questions until
that is closed, waits for the outstanding answers, and writes one `Asked` per line. A latency counts from the
time when its question was due, so that a stall that delays questions is not hidden. Times are those of the
machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from typing import IO, Any

import uvloop

from benchmarks.connection import Broken, Line, Reply, post
from benchmarks.datasets import ROOT

_OUTPUT_LIMIT_S = 60.0
# Enough for the documents that must be cited, whatever else a question asks about.
_TOP_K = 10


@dataclass(frozen=True)
class Steady:
    """A description of the questions, their rate, and the expected answers.

    Attributes:
        questions: a file with one question per line, as a JSON string; they are sent in turn, repeatedly.
        rate: questions per second.
        limit_s: the time after which the load ends by itself.
        lines: the number of keep-alive connections, used in turn; if all are in use, a question waits.
        timeout_s: the longest time to wait for an answer.
        documents: the documents that every answer must cite.
        version: a regular expression whose group is the version in an answer or a citation.
    """

    port: int
    questions: str
    rate: float
    limit_s: float
    lines: int
    timeout_s: float
    documents: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Asked:
    """One question; `due`, `sent` and `ended` are in seconds.

    Attributes:
        error: the kind of error, if there was one.
        index: the index that the answer names.
        versions: the distinct versions in the answer and its citations.
    """

    due: float
    sent: float
    ended: float
    error: str | None = None
    index: str | None = None
    versions: tuple[str, ...] = ()

    @property
    def latency_ms(self) -> float:
        return (self.ended - self.due) * 1000


class Asking:
    """A running load generator."""

    def __init__(self, process: subprocess.Popen[str], steady: Steady) -> None:
        self._process = process
        self._steady = steady

    def check(self) -> None:
        """Check that the load generator still runs.

        Raises:
            RuntimeError: it has ended by itself.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the questions have ended with status {self._process.returncode}")

    def finish(self) -> list[Asked]:
        """Send no more questions, and return all of them in the order in which they were due.

        Raises:
            RuntimeError: the load generator failed.
        """
        output, _ = self._process.communicate(timeout=self._steady.timeout_s + _OUTPUT_LIMIT_S)
        if self._process.returncode != 0:
            raise RuntimeError(f"the questions have ended with status {self._process.returncode}")
        found = [json.loads(line) for line in output.splitlines()]
        return [Asked(**{**each, "versions": tuple(each["versions"])}) for each in found]


@contextmanager
def asking(steady: Steady) -> Iterator[Asking]:
    """Run a load generator until `finish` or the end of the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.steady"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps(asdict(steady))}\n")
        process.stdin.flush()
        yield Asking(process, steady)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


class _Run:
    def __init__(self, steady: Steady, stopped: threading.Event) -> None:
        self._steady = steady
        self._stopped = stopped
        self._version = re.compile(steady.version)
        self._free: asyncio.Queue[Line] = asyncio.Queue()
        for _ in range(steady.lines):
            self._free.put_nowait(Line(steady.port, steady.timeout_s))

    async def ask_all(self, questions: Iterator[bytes]) -> list[Asked]:
        tasks = []
        started = time.monotonic()
        for number in count():
            due = started + number / self._steady.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._stopped.is_set() or due > started + self._steady.limit_s:
                break
            tasks.append(asyncio.create_task(self._ask(due, next(questions))))
        asked = await asyncio.gather(*tasks)
        while not self._free.empty():
            self._free.get_nowait().close()
        return asked

    async def _ask(self, due: float, question: bytes) -> Asked:
        line = await self._free.get()
        sent = time.monotonic()
        try:
            reply = await line.exchange(post("/query", b'{"query":%s,"top_k":%d}' % (question, _TOP_K)))
        except (OSError, Broken) as error:
            return Asked(due, sent, time.monotonic(), error=type(error).__name__)
        finally:
            self._free.put_nowait(line)
        return self._asked(due, sent, time.monotonic(), reply)

    def _asked(self, due: float, sent: float, ended: float, reply: Reply) -> Asked:
        if reply.status != 200:
            return Asked(due, sent, ended, error=f"status {reply.status}")
        answer: dict[str, Any] = json.loads(reply.body)
        missing = set(self._steady.documents) - {each["document"] for each in answer["citations"]}
        texts = [answer["answer"], *(each["text"] for each in answer["citations"])]
        versions = sorted({found for text in texts for found in self._version.findall(text)})
        error = f"no citation of {', '.join(sorted(missing))}" if missing else None
        if not versions and not missing:
            error = "no version"
        return Asked(due, sent, ended, error, answer["index"], tuple(versions))


def _stop_at_end(stream: IO[str], stopped: threading.Event) -> None:
    stream.read()
    stopped.set()


def main() -> None:
    """Read a load, generate it, and print the questions asked."""
    fields = json.loads(sys.stdin.readline())
    steady = Steady(**{**fields, "documents": tuple(fields["documents"])})
    stopped = threading.Event()
    threading.Thread(target=_stop_at_end, args=(sys.stdin, stopped), daemon=True).start()
    lines = Path(steady.questions).read_bytes().splitlines()
    for asked in uvloop.run(_Run(steady, stopped).ask_all(cycle(lines))):
        print(json.dumps(asdict(asked)))


if __name__ == "__main__":
    main()
