"""Zip files that inflate to a large size, which their directory may hide."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

MB = 1 << 20


def add_zeros(source: Path, target: Path, mb: int, declared_bytes: int | None = None) -> Path:
    """Copy an Office file, with so many zeros as one more member.

    Args:
        declared_bytes: the size in the directory; by default the true one.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member, old.read(member))
        new.writestr("customXml/zeros.xml", _deflated_zeros(mb), zipfile.ZIP_STORED)
        # The directory is written last. It declares the stored member as deflated.
        zeros = new.getinfo("customXml/zeros.xml")
        zeros.compress_type = zipfile.ZIP_DEFLATED
        zeros.file_size = mb * MB if declared_bytes is None else declared_bytes
    return target


def _deflated_zeros(mb: int) -> bytes:
    """Deflate zeros into flushed blocks, which can be repeated, and an empty final block of two bytes."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = deflate.compress(bytes(MB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return block * mb + b"\x03\x00"
