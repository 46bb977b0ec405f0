"""Detection of protected files, which a parser reports as empty or damaged, or as the notice they contain."""

from __future__ import annotations

import mmap
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# The streams of Office since 2007, of PowerPoint before 2007, and of rights management. The first one is also
# written in capitals.
_OLE_STREAMS = ("EncryptedPackage", "ENCRYPTEDPACKAGE", "EncryptedSummary", "\tDRMContent")
_WORD_MAGIC, _WORD_IS_ENCRYPTED = 0xA5EC, 0x0100
_ODF_MANIFEST = "META-INF/manifest.xml"
_MAX_MANIFEST_BYTES = 1 << 20


def is_protected(path: Path) -> bool:
    """Return True if an OLE or OpenDocument file is protected by a password or by rights management."""
    with path.open("rb") as file:
        magic = file.read(len(_OLE_MAGIC))
        if magic == _OLE_MAGIC:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _is_protected_ole(content)
    return path.suffix.lower() in {".odt", ".ods"} and _is_protected_odf(path)


def _is_protected_ole(content: mmap.mmap) -> bool:
    return any(_find_stream(content, name) >= 0 for name in _OLE_STREAMS) or _is_protected_word(content)


def _find_stream(content: mmap.mmap, name: str) -> int:
    """Find a stream's directory entry: its name in 64 bytes, then the length with the final two NUL bytes."""
    encoded = name.encode("utf-16-le")
    return content.find(struct.pack("<64sH", encoded, len(encoded) + 2))


def _is_protected_word(content: mmap.mmap) -> bool:
    """Read the flag in the header of the main stream of Word's format before 2007."""
    entry = _find_stream(content, "WordDocument")
    if entry < 0:
        return False
    with suppress(struct.error):  # the file is truncated, or its sizes are invalid
        (sector_bits,) = struct.unpack_from("<H", content, 30)
        (first_sector,) = struct.unpack_from("<I", content, entry + 116)
        magic, flags = struct.unpack_from("<H8xH", content, (first_sector + 1) << min(sector_bits, 16))
        return magic == _WORD_MAGIC and bool(flags & _WORD_IS_ENCRYPTED)
    return False


def _is_protected_odf(path: Path) -> bool:
    with (
        suppress(zipfile.BadZipFile, KeyError, OSError, ValueError, NotImplementedError, RuntimeError),
        zipfile.ZipFile(path) as archive,
        archive.open(_ODF_MANIFEST) as manifest,
    ):
        return b"encryption-data" in manifest.read(_MAX_MANIFEST_BYTES)
    return False
