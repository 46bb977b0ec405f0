"""A closed-loop load generator in a process of its own: each user asks, waits for the answer, and asks again.

`python -m benchmarks.loadgen` reads a `Load` as JSON from standard input and writes a `Result`. Each user has
one connection, and no question is asked twice. A response without status 200 and the expected text is an
error, and counts only as that.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.connection import Broken, Line, Reply, get, post
from benchmarks.datasets import ROOT

# Without a pause, a server that refuses at once would be asked as fast as it can refuse.
_PAUSE_AFTER_ERROR_S = 0.1
_PROBE_EVERY_S = 0.05
# Each probe stays with one worker of the server. Four probes are likely to reach every worker.
_PROBES = 4


@dataclass(frozen=True)
class Step:
    """A request; `%s` in the body is replaced by the question, as a JSON string.

    Attributes:
        expected: texts that the response must contain.
        first: text that marks the first token of a stream.
    """

    path: str
    body: str
    expected: tuple[str, ...]
    first: str | None = None


@dataclass(frozen=True)
class Load:
    """A description of users, their requests and their duration.

    Attributes:
        questions: a file with one question per line, as a JSON string.
        skip: the number of questions that were asked before.
        steps: the requests that make up a query, one after the other.
        requests: the number of queries after which the load ends, if that is before `seconds` have passed.
        warm_up_s: the time in which only errors are counted.
        ramp_s: the time over which the users start, evenly spread.
        timeout_s: the longest time that a user waits for an answer.
        probe: a path to request all the time, on connections of its own.
    """

    port: int
    questions: str
    steps: tuple[Step, ...]
    users: int
    seconds: float
    skip: int = 0
    requests: int | None = None
    warm_up_s: float = 0
    ramp_s: float = 0
    timeout_s: float = 60
    probe: str | None = None


@dataclass(frozen=True)
class Times:
    """Quantiles of times in milliseconds."""

    p50: float
    p90: float
    p99: float
    max: float
    count: int


@dataclass(frozen=True)
class Result:
    """The outcome of a load.

    Attributes:
        asked: queries that were begun, including those of the warm-up.
        errors: kinds of errors and their numbers, from the first query to the last.
        throughput: answered queries per second.
        latency: times of the answered queries.
        first: times until their first tokens.
        probe: response times of the probed path; its failures count among the errors.
        cpu_ms: processor time of the load generator per query.
    """

    asked: int
    errors: dict[str, int]
    throughput: float
    latency: Times | None
    first: Times | None
    probe: Times | None
    cpu_ms: float


def run_load(load: Load) -> Result:
    """Generate a load in a process of its own."""
    limit_s = load.ramp_s + load.warm_up_s + load.seconds + len(load.steps) * load.timeout_s + 60
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loadgen"],
        input=json.dumps(asdict(load)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    times = {name: Times(**found[name]) for name in ("latency", "first", "probe") if found[name]}
    return Result(**{**found, **times})


def middle(results: list[Result]) -> Result:
    """Return the result of median throughput, with the errors of all results."""
    ordered = sorted(results, key=lambda each: each.throughput)
    errors: Counter[str] = Counter()
    for each in results:
        errors.update(each.errors)
    asked = sum(each.asked for each in results)
    return replace(ordered[len(ordered) // 2], asked=asked, errors=dict(errors))


@dataclass
class _Run:
    load: Load
    questions: Iterator[bytes]
    started: float
    cpu_before: float
    asked: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    answered: list[tuple[float, float, float | None]] = field(default_factory=list)
    probed: list[float] = field(default_factory=list)

    @property
    def counted_from(self) -> float:
        return self.started + self.load.ramp_s + self.load.warm_up_s

    @property
    def ends(self) -> float:
        return self.counted_from + self.load.seconds

    def next_question(self) -> bytes | None:
        if time.perf_counter() >= self.ends or self.asked == self.load.requests:
            return None
        question = next(self.questions, None)
        if question is None:
            self.errors["no question is left"] += 1
            return None
        self.asked += 1
        return question

    async def user(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        line = Line(self.load.port, self.load.timeout_s)
        while question := self.next_question():
            started = time.perf_counter()
            try:
                first_at = await self._query(line, question)
            except (OSError, Broken, _Wrong) as error:
                self.errors[_kind(error)] += 1
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
            else:
                self.answered.append((started, time.perf_counter(), first_at))
        line.close()

    async def _query(self, line: Line, question: bytes) -> float | None:
        first_at = None
        for step in self.load.steps:
            body = step.body.encode().replace(b"%s", question, 1)
            first = step.first.encode() if step.first else None
            reply = await line.exchange(post(step.path, body), first)
            _check(reply, step)
            first_at = reply.first_at or first_at
        return first_at

    async def probe(self, path: str) -> None:
        line = Line(self.load.port, self.load.timeout_s)
        while True:
            started = time.perf_counter()
            try:
                _check_status(await line.exchange(get(path)))
            except (OSError, Broken, _Wrong) as error:
                self.errors[f"{path}: {_kind(error)}"] += 1
            self.probed.append(time.perf_counter() - started)
            await asyncio.sleep(max(0, started + _PROBE_EVERY_S - time.perf_counter()))

    def result(self) -> Result:
        counted = [each for each in self.answered if each[0] >= self.counted_from]
        # Answers after the end of the load have a latency, but do not count for the throughput.
        ends = [ended for _, ended, _ in self.answered if self.counted_from <= ended <= self.ends]
        seconds = (
            self.load.seconds if self.load.requests is None else max(ends, default=0) - self.counted_from
        )
        firsts = [first - started for started, _, first in counted if first is not None]
        return Result(
            asked=self.asked,
            errors=dict(self.errors),
            throughput=len(ends) / seconds if ends else 0,
            latency=_times([ended - started for started, ended, _ in counted]),
            first=_times(firsts),
            probe=_times(self.probed),
            cpu_ms=(time.process_time() - self.cpu_before) * 1000 / max(1, self.asked),
        )


class _Wrong(Exception):
    """The response is not the expected one."""


def _check(reply: Reply, step: Step) -> None:
    _check_status(reply)
    for text in step.expected:
        if text.encode() not in reply.body:
            raise _Wrong(f"no {text} in the answer")
    if step.first is not None and reply.first_at is None:
        raise _Wrong("no token in the answer")


def _check_status(reply: Reply) -> None:
    if reply.status != 200:
        raise _Wrong(f"status {reply.status}")


def _kind(error: Exception) -> str:
    return str(error) if isinstance(error, _Wrong) else type(error).__name__


def _times(seconds: list[float]) -> Times | None:
    if not seconds:
        return None
    p50, p90, p99, most = np.quantile(seconds, [0.5, 0.9, 0.99, 1], method="higher") * 1000
    return Times(float(p50), float(p90), float(p99), float(most), len(seconds))


async def _generate(load: Load, questions: Iterator[bytes]) -> Result:
    run = _Run(load, questions, time.perf_counter(), time.process_time())
    probes = [asyncio.create_task(run.probe(load.probe)) for _ in range(_PROBES) if load.probe]
    delays = [load.ramp_s * number / load.users for number in range(load.users)]
    await asyncio.gather(*(run.user(delay) for delay in delays))
    for probe in probes:
        probe.cancel()
    return run.result()


def _load(found: dict[str, Any]) -> Load:
    return Load(**{**found, "steps": tuple(Step(**step) for step in found["steps"])})


def main() -> None:
    """Read a load, generate it, and print its result."""
    load = _load(json.load(sys.stdin))
    with Path(load.questions).open("rb") as file:
        questions = (line.rstrip() for line in islice(file, load.skip, None))
        result = uvloop.run(_generate(load, questions))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
