"""The time from a process's start to the first 200 of /health, compared with the import of its modules."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.corpus import service_index
from benchmarks.load import read_into_cache
from benchmarks.processes import free_port, is_ready, stop
from benchmarks.report import Report
from benchmarks.service import SERVER, server_environment

_CHUNKS = 100_000
_REPETITIONS = 9
_LIMIT_S = 120
_POLL_S = 0.005
# Slower polling once the server answers, because each answer delays its start.
_POLL_ANSWERED_S = 0.02


def measure() -> Report:
    """Measure both in turns."""
    report = Report("start")
    index = service_index(_CHUNKS)
    ready: list[float] = []
    imported: list[float] = []
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        script = Path(folder, "imports.py")
        modules = _modules(index, folder)
        script.write_text(f"import os\nimport {', '.join(modules)}\nos.write(1, b'.')\n", encoding="utf-8")
        # In turns, so that other load of the machine affects both alike. The first turn compiles modules.
        for _ in range(_REPETITIONS + 1):
            read_into_cache(index)
            ready.append(_until_ready(index, folder))
            imported.append(_until_imported(script, index, folder))
    report.add(f"bare import of {len(modules):,} modules", median(imported[1:]), "ms")
    report.add(f"ready with {_CHUNKS:,} chunks", median(ready[1:]), "ms")
    ratios = [start / bare for start, bare in zip(ready[1:], imported[1:], strict=True)]
    report.add("ready / bare import, median of pairs", median(ratios), at_most=1.2)
    return report.save()


def _modules(index: Path, folder: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.started"],
        env=server_environment(index, free_port()),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the server did not start: {done.stderr[-2000:]}")
    modules: list[str] = json.loads(done.stdout)
    return modules


def _until_ready(index: Path, folder: str) -> float:
    port = free_port()
    started = time.perf_counter()
    process = subprocess.Popen(SERVER, env=server_environment(index, port), cwd=folder)
    try:
        while not (answer := is_ready(port, "/health")):
            if process.poll() is not None or time.perf_counter() - started > _LIMIT_S:
                raise RuntimeError("the server did not become ready")
            time.sleep(_POLL_S if answer is None else _POLL_ANSWERED_S)
        return (time.perf_counter() - started) * 1000
    finally:
        stop(process)


def _until_imported(script: Path, index: Path, folder: str) -> float:
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(script)], env=server_environment(index, 1), cwd=folder, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        done = process.stdout.read(1)
        taken = (time.perf_counter() - started) * 1000
    if not done:
        raise RuntimeError("the modules could not be imported")
    return taken
