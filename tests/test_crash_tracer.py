"""The tracer of the tests: it sees every step that changes a file, and kills at the one that it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.crash_tracer.durability import not_flushed
from tests.crash_tracer.layout import role
from tests.crash_tracer.seccomp import ALL
from tests.crash_tracer.tracer import Step, reason_not_to_trace
from tests.support.serving import ROOT

# Python, a thread, a child of another program, and the calls that name a file in their various ways.
WORK = """
import os, subprocess, threading
from pathlib import Path

def work():
    with open("a.txt", "w") as file:
        file.write("one")
        file.flush()
        os.fsync(file.fileno())
    thread = threading.Thread(target=Path("b.txt").write_text, args=["two"])
    thread.start()
    thread.join()
    subprocess.run(["sh", "-c", "echo three > c.txt"], check=True)
    Path("/dev/null").write_text("elsewhere")
    Path("a.txt").read_text()
    folder = os.open(".", os.O_RDONLY)
    os.mkdir("sub", dir_fd=folder)
    os.rename("a.txt", "sub/d.txt", src_dir_fd=folder)
    os.truncate("b.txt", 1)
    os.unlink("b.txt")
    return 3
"""
TRACE = """
import json, sys
from pathlib import Path
from tests.crash_tracer.tracer import TracingError, Verdict, trace

calls, where, how, after_s, limit_s = json.loads(sys.argv[1])
seen = 0

def judge(step):
    global seen
    seen += 1
    return Verdict(how) if seen == where else Verdict.GO

try:
    done = trace(work, Path.cwd(), calls=calls, on_step=judge, kill_after_s=after_s, limit_s=limit_s)
    print(json.dumps([done.steps, done.status]))
except TracingError as error:
    print(json.dumps(str(error)))
"""
STEPS = [
    ["openat", "a.txt"],
    ["write", "a.txt"],
    ["fsync", "a.txt"],
    ["openat", "b.txt"],
    ["write", "b.txt"],
    ["openat", "c.txt"],
    ["write", "c.txt"],
    ["mkdirat", "sub"],
    ["renameat", "a.txt -> sub/d.txt"],
    ["truncate", "b.txt"],
    ["unlink", "b.txt"],
]


@pytest.fixture(scope="module", autouse=True)
def _permitted() -> None:
    if reason := reason_not_to_trace():
        pytest.skip(reason)


def run_traced(
    folder: Path,
    work: str = WORK,
    *,
    calls: Collection[str] = ALL,
    where: int = 0,
    how: str = "go",
    after_s: float | None = None,
    limit_s: float = 30,
) -> Any:
    """Steps and exit status, or the error."""
    told = json.dumps([list(calls), where, how, after_s, limit_s])
    done = subprocess.run(
        [sys.executable, "-c", work + TRACE, told],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_the_tracer_sees_every_change_and_nothing_else(tmp_path: Path) -> None:
    """Changes by all threads and children count; reads and files elsewhere do not."""
    steps, status = run_traced(tmp_path)
    assert steps == STEPS
    assert status == 3
    assert (tmp_path / "sub" / "d.txt").read_text() == "one"


@pytest.mark.parametrize(
    ("where", "there"),
    [
        (1, {}),
        (2, {"a.txt": ""}),
        (3, {"a.txt": "one"}),
        (7, {"a.txt": "one", "b.txt": "two", "c.txt": ""}),
        (9, {"a.txt": "one", "b.txt": "two", "c.txt": "three\n"}),
        (11, {"sub/d.txt": "one", "b.txt": "t", "c.txt": "three\n"}),
    ],
)
def test_the_tracer_kills_before_a_step(tmp_path: Path, where: int, there: dict[str, str]) -> None:
    """That step has not taken place, but the previous one has."""
    assert run_traced(tmp_path, where=where, how="before") == [STEPS[:where], None]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path).as_posix(): path.read_text() for path in files} == there


def test_only_the_requested_calls_are_steps(tmp_path: Path) -> None:
    steps, status = run_traced(tmp_path, calls={"write", "unlink"})
    assert (steps, status) == ([step for step in STEPS if step[0] in {"write", "unlink"}], 3)


def test_the_tracer_kills_after_a_step(tmp_path: Path) -> None:
    steps, status = run_traced(tmp_path, where=9, how="after")
    assert (len(steps), status) == (9, None)
    assert (tmp_path / "sub" / "d.txt").exists()
    assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "b.txt").read_text() == "two"


WAITS_WITH_A_CHILD = """
import subprocess, time

def work():
    child = subprocess.Popen(["sleep", "600"])
    open("started", "w").close()
    time.sleep(600)
"""


@pytest.mark.parametrize("limits", [{"after_s": 0.5}, {"limit_s": 0.5}, {"where": 1, "how": "after"}])
def test_a_killed_program_leaves_no_process(tmp_path: Path, limits: dict[str, Any]) -> None:
    """It may be killed at a moment, at its time limit or at a step."""
    told = run_traced(tmp_path, WAITS_WITH_A_CHILD, **limits)
    assert "not done after 0.5 s" in told if "limit_s" in limits else told[1] is None
    assert [process for process in Path("/proc").glob("[0-9]*") if works_in(tmp_path, process)] == []


def works_in(folder: Path, process: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder
    except OSError:  # it has ended, or is another user's
        return False


OUTLIVED_BY_A_CHILD = """
import os, subprocess

def work():
    subprocess.Popen(["sh", "-c", f"while kill -0 {os.getpid()}; do :; done; echo > late"])
    return 0
"""


def test_a_trace_ends_with_the_last_process(tmp_path: Path) -> None:
    """That process may be an orphan."""
    assert run_traced(tmp_path, OUTLIVED_BY_A_CHILD) == [[["openat", "late"], ["write", "late"]], 0]


def test_files_that_differ_only_in_ids_have_the_same_role() -> None:
    staging = "snapshots/.staging-20261121T031621Z-2e6f81"
    uuid = "804a5e7c-fdd4-4a80-9f52-b950b9337ed9"
    assert role(f"{staging}/engine/segments/{uuid}/x") == "snapshots/.staging-<id>/engine/*"
    assert role(f"{staging}/engine/a -> {staging}/engine/b") == (
        "snapshots/.staging-<id>/engine/* -> snapshots/.staging-<id>/engine/*"
    )
    assert role(f"{staging} -> snapshots/20261121T031621Z-2e6f81") == (
        "snapshots/.staging-<id> -> snapshots/<id>"
    )


WELL_FLUSHED = [
    Step("mkdir", "snapshots/new"),
    Step("openat", "snapshots/new/data"),
    Step("write", "snapshots/new/data"),
    Step("fsync", "snapshots/new/data"),
    Step("fsync", "snapshots/new"),
    Step("rename", "snapshots/new -> snapshots/20261121T031621Z-2e6f81"),
    Step("fsync", "snapshots"),
    Step("openat", "CURRENT.next"),
    Step("write", "CURRENT.next"),
    Step("fsync", "CURRENT.next"),
    Step("rename", "CURRENT.next -> CURRENT"),
    Step("fsync", "."),
    Step("unlink", "snapshots/20251121T031621Z-2e6f81/data"),
]


def test_files_flushed_in_order_count_as_durable() -> None:
    assert not_flushed(WELL_FLUSHED) == []


@pytest.mark.parametrize(
    ("path", "missed"),
    [
        ("snapshots/new/data", "snapshots/20261121T031621Z-2e6f81/data"),
        ("snapshots/new", "snapshots/20261121T031621Z-2e6f81"),
        ("snapshots", "snapshots"),
        ("CURRENT.next", "CURRENT.next"),
        (".", "CURRENT"),
    ],
)
def test_each_missing_flush_is_reported(path: str, missed: str) -> None:
    assert not_flushed([step for step in WELL_FLUSHED if step != Step("fsync", path)]) == [missed]


def test_a_removal_before_its_successor_is_durable_is_reported() -> None:
    removal = Step("rename", "snapshots/20251121T031621Z-2e6f81 -> snapshots/.removing")
    assert not_flushed([*WELL_FLUSHED[:-2], removal, *WELL_FLUSHED[-2:]]) == ["CURRENT"]


def test_a_trace_without_a_publication_is_reported() -> None:
    assert not_flushed(WELL_FLUSHED[:-3]) == ["CURRENT"]


def test_a_flush_before_the_last_change_does_not_count() -> None:
    late = Step("write", "snapshots/new/data")
    assert not_flushed([*WELL_FLUSHED[:5], late, *WELL_FLUSHED[5:]]) == [
        "snapshots/20261121T031621Z-2e6f81/data"
    ]
