"""Mounts that only one process and its children see, and that disappear with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# Without root, mounting needs a user namespace, where the system permits that.
_IS_ROOT = os.geteuid() == 0
_UNSHARE = ["unshare", "--mount", *([] if _IS_ROOT else ["--map-root-user"])]
_ENTER = ["nsenter", "--mount", *([] if _IS_ROOT else ["--user", "--preserve-credentials"])]
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_SMALL = 'mount -t tmpfs -o size="$2" tmpfs "$1" && shift 2 && exec "$@"'


def read_only(folder: Path) -> list[str]:
    """Return a command prefix that makes a folder read-only for the command that follows, but no other."""
    return _checked([*_UNSHARE, "sh", "-euc", _READ_ONLY, "sh", str(folder)])


def small(folder: Path, size: str = "200k") -> list[str]:
    """Return a command prefix that mounts an empty disk of a given size for the command that follows."""
    return _checked([*_UNSHARE, "sh", "-euc", _SMALL, "sh", str(folder), size])


@dataclass(frozen=True)
class SmallDisk:
    """A disk in memory, mounted on a folder.

    Attributes:
        within: a command prefix for running commands where the disk is mounted.
        content: a path to the disk's content from where it is not mounted.
    """

    folder: Path
    within: list[str]
    content: Path

    def leave_free(self, free: int) -> None:
        """Resize the disk to its used space and so many free bytes."""
        status = os.statvfs(self.content)
        size = (status.f_blocks - status.f_bfree) * status.f_frsize + free
        remount = ["mount", "-o", f"remount,size={size}", str(self.folder)]
        subprocess.run([*self.within, *remount], check=True, timeout=20)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a disk that several commands can use."""
    holding = [*small(folder, size), "sh", "-c", "echo mounted; exec cat"]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mounted\n"
        within = [*_ENTER, f"--target={holder.pid}"]
        yield SmallDisk(folder, within, Path(f"/proc/{holder.pid}/root") / folder.relative_to("/"))


def _checked(within: list[str]) -> list[str]:
    try:
        tried = subprocess.run([*within, "true"], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare, of util-linux")
    if tried.returncode != 0:
        pytest.skip(f"needs the right to mount: {tried.stderr.strip()}")
    return within
