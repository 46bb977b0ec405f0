"""Mounts that only one process and its children see, and that end with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

# A root in a user namespace may mount, too, where that is permitted.
_UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_SMALL = 'mount -t tmpfs -o size=200k tmpfs "$1" && shift && exec "$@"'


def read_only(folder: Path) -> list[str]:
    """A command that runs what follows it where a folder cannot be written to; others still can."""
    return _checked([*_UNSHARE, "sh", "-euc", _READ_ONLY, "sh", str(folder)])


def small(folder: Path) -> list[str]:
    """A command that runs what follows it where a folder is an empty disk with room for 200 kB."""
    return _checked([*_UNSHARE, "sh", "-euc", _SMALL, "sh", str(folder)])


def _checked(within: list[str]) -> list[str]:
    try:
        tried = subprocess.run([*within, "true"], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare, of util-linux")
    if tried.returncode != 0:
        pytest.skip(f"needs the right to mount: {tried.stderr.strip()}")
    return within
