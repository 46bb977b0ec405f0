"""Release of the memory that the engine has mapped."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def release_mapped_pages(folder: Path, maps: Path = _MAPS) -> None:
    """Take the pages of files below a folder out of this process.

    They stay in the kernel's cache, which writes and drops them as it needs memory, and come back from there
    when they are used. Elsewhere than on Linux nothing happens.

    Args:
        maps: where the kernel lists what this process has mapped.
    """
    if not maps.exists():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    below = f"{folder.resolve()}/"
    for line in maps.read_text().splitlines():
        # Addresses, permissions, offset, device, inode, and a path that may have blanks.
        addresses, permissions, *_, path = [*line.split(maxsplit=5), ""][:6]
        if permissions.endswith("s") and path.startswith(below):
            start, end = (int(address, 16) for address in addresses.split("-"))
            # Of a shared mapping nothing is lost: what was written into it is the file's.
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
