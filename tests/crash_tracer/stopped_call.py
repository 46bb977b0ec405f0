"""The system call that a traced thread is stopped at, and the files that it changes."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.crash_tracer import seccomp
from tests.crash_tracer.ptrace import GET_SYSCALL_INFO, ptrace
from tests.crash_tracer.seccomp import Place

_AT_FDCWD = -100
# struct ptrace_syscall_info: what stopped it, architecture, instruction and stack, number, six arguments.
_INFO = struct.Struct("=B3xIQQQ6Q")
_MAX_NAME = 4096
_MAKING = {"mkdir", "mkdirat"}
_REMOVING = {"rmdir", "unlink", "unlinkat"}
_PAGE = os.sysconf("SC_PAGE_SIZE")


class StoppedCall(NamedTuple):
    """A system call that is about to take place.

    Attributes:
        paths: absolute; a socket or a pipe has one without a slash.
    """

    name: str
    paths: tuple[str, ...]
    arguments: tuple[int, ...]
    flags: int | None

    @property
    def changes_nothing(self) -> bool:
        """Tell whether the call makes what is there or removes what is not, as many of the engine's do."""
        path = self.paths[0]
        there = os.path.lexists(path)
        if self.flags is not None:
            return there and not self.arguments[self.flags] & os.O_TRUNC
        if self.name == "ftruncate":
            return there and Path(path).stat().st_size == self.arguments[1]
        return there if self.name in _MAKING else not there and self.name in _REMOVING


def stopped_call(thread: int) -> StoppedCall:
    """Read the call that a thread is stopped at.

    Raises:
        OSError: the thread was killed meanwhile.
    """
    buffer = ctypes.create_string_buffer(_INFO.size)
    ptrace(GET_SYSCALL_INFO, thread, len(buffer), ctypes.addressof(buffer))
    _, _, _, _, number, *arguments = _INFO.unpack(buffer.raw)
    call = seccomp.CALLS[number]
    if call.name == "msync":
        paths = [_mapped_file(thread, arguments[0], arguments[1])]
    else:
        paths = [_path(thread, arguments, place) for place in call.places]
    return StoppedCall(call.name, tuple(paths), tuple(arguments), call.flags)


def _path(thread: int, arguments: list[int], place: Place) -> str:
    name = _name(thread, arguments[place.name]) if place.name is not None else ""
    if name.startswith("/"):
        base = Path("/")
    elif place.descriptor is None or (descriptor := _signed(arguments[place.descriptor])) == _AT_FDCWD:
        base = Path(f"/proc/{thread}/cwd").readlink()
    else:
        base = Path(f"/proc/{thread}/fd/{descriptor}").readlink()
    if not name:
        return str(base)
    path = base / name
    return str(path.parent.resolve() / path.name)


def _name(thread: int, address: int) -> str:
    if address == 0:
        return ""
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        return os.fsdecode(os.pread(memory, _MAX_NAME, address).split(b"\0", 1)[0])
    finally:
        os.close(memory)


def _signed(argument: int) -> int:
    return ctypes.c_int(argument & 0xFFFFFFFF).value


def _mapped_file(thread: int, address: int, length: int) -> str:
    # Most flush a whole mapping, and this takes 10 µs instead of 3 ms; but only root may ask for it.
    end = -(-(address + length) // _PAGE) * _PAGE
    with suppress(OSError):
        return str(Path(f"/proc/{thread}/map_files/{address:x}-{end:x}").readlink())
    for line in Path(f"/proc/{thread}/maps").read_text().splitlines():
        bounds, *_, path = line.split(maxsplit=5) if "/" in line else (line.split()[0], "")
        start, end = (int(bound, 16) for bound in bounds.split("-"))
        if start <= address < end:
            return path
    return ""
