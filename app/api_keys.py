"""API keys: how they are written down, and whose they are.

An entry is `name:key`, `key`, or `name:sha256:<64 hex digits>`. Only digests are kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_KEY = re.compile(r"[\x21-\x7e]+")
_COMMENT = re.compile(r"(^|\s)#.*")
_LOOK_EACH_S = 1.0

Names = dict[bytes, str]
_Signature = tuple[int, int, int]


def parse_keys(text: str) -> Names:
    """The names by the SHA-256 digests of their keys; entries have blanks or commas between them.

    Raises:
        ValueError: an entry is none; the text shows nothing of it.
    """
    return _named(enumerate(text.replace(",", " ").split(), 1), "entry")


def hashed(names: Names) -> str:
    """As `parse_keys` reads it, without any key."""
    return " ".join(f"{name}:sha256:{digest.hex()}" for digest, name in names.items())


def _parse_file(text: str) -> Names:
    lines = ((number, _COMMENT.sub("", line).strip()) for number, line in enumerate(text.splitlines(), 1))
    return _named((line for line in lines if line[1]), "line")


def _named(entries: Iterable[tuple[int, str]], word: str) -> Names:
    names: Names = {}
    for number, entry in entries:
        try:
            digest, name = _parse_entry(entry)
        except ValueError as error:
            raise ValueError(f"{word} {number}: {error}") from None
        if names.setdefault(digest, name) != name:
            raise ValueError(f"{word} {number}: this key has another name already ({names[digest]})")
    return names


def _parse_entry(entry: str) -> tuple[bytes, str]:
    name, colon, key = entry.partition(":")
    if not colon:
        name, key = "", entry
    elif name == "sha256":
        raise ValueError("a hashed key needs a name: name:sha256:<64 hex digits>")
    elif not _NAME.fullmatch(name):
        raise ValueError("a name has up to 64 letters, digits, dots, dashes and underscores")
    if match := _DIGEST.fullmatch(key):
        return bytes.fromhex(match[1]), name
    if key.startswith("sha256:"):
        raise ValueError("sha256: is followed by 64 hex digits")
    if not _KEY.fullmatch(key):
        raise ValueError("a key has ASCII characters and no blanks")
    digest = hashlib.sha256(key.encode()).digest()
    return digest, name or f"key-{digest.hex()[:8]}"


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
        self._names = _parse_file(text) | self._fixed
        self._signature = signature
        return True


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino
