"""Look-up of API keys, from a setting and from a file that may change.

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

_Signature = tuple[int, int, int]


class ApiKeys:
    """The keys of a setting and of a file, which is read again when it changes."""

    def __init__(self, names: Names, path: Path | None = None, *, look_each_s: float = 1.0) -> None:
        """Read the file, if there is one.

        Args:
            look_each_s: seconds between two checks whether the file has changed; not with each request.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file has an invalid entry, or there is no key at all.
        """
        self._fixed = names
        self._path = path
        self._look_each_s = look_each_s
        self._names = names
        self._signature: _Signature | None = None
        self._problem = ""
        self._look_at = 0.0
        if path is not None:
            self._read(path)
        if not self._names:
            raise ValueError("there is no key")

    async def client_of(self, *keys: bytes) -> str | None:
        """Return the name of the first known key, or None."""
        if self._path is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._look_each_s
            # In a thread, so that a file system that hangs delays only this request.
            await asyncio.to_thread(self._read_again, self._path)
        return next((name for name in map(self._find, keys) if name), None)

    def _find(self, key: bytes) -> str | None:
        digest = hashlib.sha256(key).digest()
        found = None
        for known, name in self._names.items():
            # All keys are compared each time, so that the time reveals nothing about them.
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _read_again(self, path: Path) -> None:
        try:
            if self._read(path):
                level = logging.INFO if self._names else logging.WARNING
                logger.log(level, "API_KEYS_FILE: read again, %d keys are valid", len(self._names))
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                logger.error("API_KEYS_FILE: %s; the previous keys stay valid", error)
            self._problem = str(error)
        else:
            self._problem = ""

    def _read(self, path: Path) -> bool:
        """Read the file if it has changed, and return True if it had."""
        if _signature(path.stat()) == self._signature:
            return False
        with path.open("rb") as file:
            # The signature of the opened file: the path may lead to another file by now.
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
