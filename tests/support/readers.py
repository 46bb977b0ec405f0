"""Functions that reader processes import and run in place of a parser."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from app.documents.extraction import read_pages
from app.documents.pages import Page


def read_text(path: Path, name: str) -> str:
    return path.read_text()


def read_all_pages(path: Path, name: str) -> list[Page]:
    return read_pages(path)


def behave(path: Path, name: str) -> str:
    """Hang, crash or fail as the file's name says."""
    if "hang" in name:
        time.sleep(600)
    if "crash" in name:
        os.abort()
    if "killed" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "raise" in name:
        raise RuntimeError("inside the parser")
    if "talk" in name:
        os.write(2, b"a warning\n" * 1_000_000)
    return path.read_text()


def wait_if_first(path: Path, name: str) -> str:
    """Read a file at once, except the first one, which waits for a file "go"."""
    while name == "1.txt" and not (path.parent / "go").exists():
        time.sleep(0.01)
    return path.read_text()


def tell(path: Path, name: str) -> str:
    """Make a file that shows which file is being read."""
    path.with_suffix(".begun").touch()
    return path.read_text()


def tell_number(path: Path, name: str) -> str:
    """Write the process id to a file."""
    path.with_suffix(".pid").write_text(str(os.getpid()))
    return behave(path, name)


def tell_number_and_end(path: Path, name: str) -> None:
    """Write the process id to a file before parsing, and make another file afterwards."""
    path.with_suffix(".pid").write_text(str(os.getpid()))
    read_pages(path)
    path.with_suffix(".done").touch()


_kept: list[bytearray] = []


def use_memory(path: Path, name: str) -> int:
    """Take as many MB as the file says, keep them if its name says so, and return the process id."""
    taken = bytearray(int(path.read_text()) << 20)
    if "keep" in name:
        taken[::4096] = b"x" * len(taken[::4096])
        _kept.append(taken)
    return os.getpid()


def read_much(path: Path, name: str) -> str:
    """Return as many MB of text as the file says."""
    return "x" * (int(path.read_text()) << 20)
