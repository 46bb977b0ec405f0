"""A filter that lets a process run at full speed, but for the system calls that change files.

The filter is inherited by every thread and child. A call that it holds up waits for the tracer, see
`tests.crash_tracer.tracer`; where there is none, the call fails with ENOSYS.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Collection
from typing import NamedTuple

LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW = 0x7FFF0000
_RET_TRACE = 0x7FF00000

# Classic BPF: code, where to jump to if true and if false (counted from the next), constant.
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
# struct seccomp_data: number, architecture, the instruction's address, six arguments of 8 bytes.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Place(NamedTuple):
    """The arguments that tell a file: a descriptor, a name, or a name below a descriptor's folder."""

    descriptor: int | None = None
    name: int | None = None


class Call(NamedTuple):
    """A system call that changes files.

    Attributes:
        flags: the argument that tells whether a file is opened for writing; others are let through.
    """

    name: str
    number: int
    places: tuple[Place, ...]
    flags: int | None = None


_FILE = (Place(0),)
_BELOW = (Place(0, 1),)
_PATH = (Place(None, 0),)

# Name: the numbers on x86_64 and aarch64 (None where there is none), where the file is told.
_TABLE: dict[str, tuple[int | None, int | None, tuple[Place, ...]]] = {
    "write": (1, 64, _FILE),
    "pwrite64": (18, 68, _FILE),
    "writev": (20, 66, _FILE),
    "pwritev": (296, 70, _FILE),
    "pwritev2": (328, 287, _FILE),
    "sendfile": (40, 71, _FILE),
    "splice": (275, 76, (Place(2),)),
    "copy_file_range": (326, 285, (Place(2),)),
    "ftruncate": (77, 46, _FILE),
    "truncate": (76, 45, _PATH),
    "fallocate": (285, 47, _FILE),
    "fsync": (74, 82, _FILE),
    "fdatasync": (75, 83, _FILE),
    "sync_file_range": (277, 84, _FILE),
    "msync": (26, 227, ()),  # told by its address
    "open": (2, None, _PATH),
    "creat": (85, None, _PATH),
    "openat": (257, 56, _BELOW),
    "openat2": (437, 437, _BELOW),
    "mkdir": (83, None, _PATH),
    "mkdirat": (258, 34, _BELOW),
    "rmdir": (84, None, _PATH),
    "unlink": (87, None, _PATH),
    "unlinkat": (263, 35, _BELOW),
    "rename": (82, None, (Place(None, 0), Place(None, 1))),
    "renameat": (264, 38, (Place(0, 1), Place(2, 3))),
    "renameat2": (316, 276, (Place(0, 1), Place(2, 3))),
    "link": (86, None, (Place(None, 1),)),
    "linkat": (265, 37, (Place(2, 3),)),
    "symlink": (88, None, (Place(None, 1),)),
    "symlinkat": (266, 36, (Place(1, 2),)),
    "utimensat": (280, 88, _BELOW),
    "fchmod": (91, 52, _FILE),
    "chmod": (90, None, _PATH),
    "fchmodat": (268, 53, _BELOW),
    # Its requests are in shared memory, where no tracer sees them.
    "io_uring_setup": (425, 425, ()),
}
_FLAGS = {"open": 1, "openat": 2}

# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64, and the table's column.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
MACHINE = _MACHINES.get(platform.machine()) if platform.system() == "Linux" else None


def _calls() -> dict[int, Call]:
    calls = {}
    for name, (*numbers, places) in _TABLE.items():
        number = numbers[MACHINE[1]] if MACHINE else None
        if number is not None:
            calls[number] = Call(name, number, places, _FLAGS.get(name))
    return calls


CALLS = _calls()


ALL = frozenset(call.name for call in CALLS.values())


def install(names: Collection[str]) -> None:
    """Put the filter on this process, for good.

    Args:
        names: of the calls to hold up.

    Raises:
        OSError: the system does not permit it.
    """
    assert MACHINE is not None, "no table of system calls for this machine"
    program = _program(MACHINE[0], [call for call in CALLS.values() if call.name in names])
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, None)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def _program(architecture: int, calls: list[Call]) -> bytes:
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _RET_ALLOW),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for call in calls:
        if call.flags is None:
            code += [(_JUMP_IF_EQUAL, 0, 1, call.number), (_RETURN, 0, 0, _RET_TRACE)]
        else:
            code += [
                (_JUMP_IF_EQUAL, 0, 4, call.number),
                (_LOAD, 0, 0, _ARGUMENTS + 8 * call.flags),
                (_JUMP_IF_SET, 0, 1, _WRITING),
                (_RETURN, 0, 0, _RET_TRACE),
                (_RETURN, 0, 0, _RET_ALLOW),
            ]
    code.append((_RETURN, 0, 0, _RET_ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _prctl(option: int, value: int, pointer: bytes | None) -> None:
    if LIBC.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
