"""API keys: how they are written down, and whose they are.

An entry is `name:key`, `key`, or `name:sha256:<64 hex digits>`. Only digests are kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import time
from pathlib import Path

from app.config.api_key_entries import Names, parse_keys_file

logger = logging.getLogger(__name__)

_LOOK_EACH_S = 1.0

_Signature = tuple[int, int, int]


class ApiKeys:
    """The keys of a setting, and those of a file, which are read again when it changes."""

    def __init__(self, names: Names, path: Path | None = None) -> None:
        """
        Raises:
            OSError: the file cannot be read.
            ValueError: it holds what is no key, or there is no key at all.
        """
        self._fixed = names
        self._path = path
        self._names = names
        self._signature: _Signature | None = None
        self._problem = ""
        self._look_at = 0.0
        if path is not None:
            self._read(path)
        if not self._names:
            raise ValueError("there is no key")

    async def client_of(self, *keys: bytes) -> str | None:
        """The name of the first of the keys that is known."""
        if self._path is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EACH_S
            # In a thread: a file system that hangs holds up this request alone.
            await asyncio.to_thread(self._read_again, self._path)
        return next((name for name in map(self._find, keys) if name), None)

    def _find(self, key: bytes) -> str | None:
        digest = hashlib.sha256(key).digest()
        found = None
        for known, name in self._names.items():
            # All of them, always: the time tells nothing of which one was near.
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _read_again(self, path: Path) -> None:
        try:
            if self._read(path):
                level = logging.INFO if self._names else logging.WARNING
                logger.log(level, "API_KEYS_FILE: read again, %d keys are let in", len(self._names))
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                logger.error("API_KEYS_FILE: %s; the keys from before are kept", error)
            self._problem = str(error)
        else:
            self._problem = ""

    def _read(self, path: Path) -> bool:
        """Whether the file was another one than at the last time."""
        if _signature(path.stat()) == self._signature:
            return False
        with path.open("rb") as file:
            # Of what is read: the name may lead to another file by then.
            signature = _signature(os.fstat(file.fileno()))
            content = file.read()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ValueError("not in UTF-8") from None
        self._names = parse_keys_file(text) | self._fixed
        self._signature = signature
        return True


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino
