"""A check that an index survives a power failure, from the system calls that wrote it.

A file's content is durable after an fsync of the file that follows its last change. Its name is durable after
an fsync of its folder that follows the last change of the folder's entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from tests.crash_tracer.layout import role
from tests.crash_tracer.tracer import Step

_CONTENT = {
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "splice", "copy_file_range"),
    *("ftruncate", "truncate", "fallocate"),
}
_FLUSHES = {"fsync", "fdatasync"}
_CREATIONS = {"mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat"}
_REMOVALS = {"rmdir", "unlink", "unlinkat"}
_CURRENT = "CURRENT"


def not_flushed(steps: Iterable[Step]) -> list[str]:
    """Return the paths that are not durable when they have to be.

    The new snapshot and the content of `CURRENT` must be durable before `CURRENT` is replaced. The
    replacement must be durable before another snapshot is removed, and at the end.
    """
    unflushed = _Unflushed()
    missing: set[str] = set()
    published: list[str] = []
    replaced, pending = False, {_CURRENT}
    for step in steps:
        old, *new = step.path.split(" -> ")
        if new == [_CURRENT]:
            missing |= unflushed.of(old, *published)
            replaced, pending = True, {_CURRENT}
        elif replaced and step == Step("fsync", "."):
            pending = set()
        elif _removes_a_snapshot(step):
            missing |= pending
        elif role(step.path).endswith(" -> snapshots/<id>"):
            published = ["snapshots", *new]
        unflushed.follow(step)
    return sorted(missing | pending)


def _removes_a_snapshot(step: Step) -> bool:
    path = role(step.path)
    # Loading a snapshot removes the files that it made in the engine's folder; that does not count.
    return path.startswith("snapshots/<id> -> ") or (
        step.call in _REMOVALS and path.startswith("snapshots/<id>/") and "/engine/" not in path
    )


class _Unflushed:
    """The files and folders whose changes are not durable yet."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._known: set[str] = set()

    def of(self, *paths: str) -> set[str]:
        """Return those at given paths, and below the last of them."""
        return {each for each in self._paths if each in paths or _is_at(each, paths[-1])}

    def follow(self, step: Step) -> None:
        old, *_ = paths = step.path.split(" -> ")
        if step.call in _FLUSHES:
            self._paths.discard(old)
        elif step.call in _CONTENT:
            self._paths.add(old)
        elif step.call in _REMOVALS:
            self._paths = {each for each in self._paths if not _is_at(each, old)} | {_folder(old)}
        elif step.call.startswith("rename"):
            self._paths = {_moved(each, *paths) for each in self._paths} | {_folder(path) for path in paths}
        elif step.call in _CREATIONS or old not in self._known:
            self._paths.add(_folder(old))
        self._known.add(paths[-1])


def _is_at(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _moved(path: str, old: str, new: str) -> str:
    return new + path.removeprefix(old) if _is_at(path, old) else path


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)
