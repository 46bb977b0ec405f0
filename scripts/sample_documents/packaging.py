"""Zip packages that come out the same on every run."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import datetime

_EPOCH = (2000, 1, 1, 0, 0, 0)


def pack(members: dict[str, bytes]) -> bytes:
    """Zip in the given order with one fixed timestamp.

    A ``mimetype`` member stays uncompressed: EPUB and ODF readers look for its text
    at a fixed offset of the file.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            info.create_system = 3
            archive.writestr(info, data)
    return buffer.getvalue()


def repack(package: bytes, modified: datetime) -> bytes:
    """Remove the clock from an OOXML package.

    The libraries stamp each member with the current time, and openpyxl overwrites
    the modification date on saving, so it can only be corrected afterwards.
    """
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stamp = modified.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    members["docProps/core.xml"] = re.sub(
        rb"(<dcterms:(created|modified)[^>]*>)[^<]*", rb"\g<1>" + stamp, members["docProps/core.xml"]
    )
    return pack(members)
