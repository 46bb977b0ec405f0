"""Entries of API keys in the settings: `name:key`, `key`, or `name:sha256:<64 hex digits>`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_KEY = re.compile(r"[\x21-\x7e]+")
_COMMENT = re.compile(r"(^|\s)#.*")
Names = dict[bytes, str]


def parse_keys(text: str) -> Names:
    """Return the names by the SHA-256 digests of their keys. Entries are separated by blanks or commas.

    Raises:
        ValueError: an entry is malformed. The message does not show it.
    """
    return _named(enumerate(text.replace(",", " ").split(), 1), "entry")


def hashed(names: Names) -> str:
    """Return entries of the names and digests, without the keys, as `parse_keys` reads them."""
    return " ".join(f"{name}:sha256:{digest.hex()}" for digest, name in names.items())


def parse_keys_file(text: str) -> Names:
    """Return the names by the SHA-256 digests of the keys in a file, one a line, with comments after `#`.

    Raises:
        ValueError: a line is malformed. The message does not show it.
    """
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
