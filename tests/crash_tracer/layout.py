"""The files below an index directory by their roles, with placeholders for the ids in their names."""

from __future__ import annotations

import re
from pathlib import Path

_IDS = (
    (re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}"), "<id>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
)
# The engine's many files have one role, since only their snapshot as a whole is crash-safe.
_ENGINE = re.compile(r"(snapshots/[^/]*<id>)/engine/\S+")
_DATABASE_LOG = re.compile(r"(?<=\.sqlite)-(wal|shm|journal)$")


def role(path: str) -> str:
    """Return the role of a path, or of a rename's "old -> new"."""
    for pattern, name in _IDS:
        path = pattern.sub(name, path)
    return _ENGINE.sub(r"\1/engine/*", path)


def layout(folder: Path) -> set[str]:
    """Return the roles of everything below a folder; the logs of a database count as the database."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {role(_DATABASE_LOG.sub("", path)) for path in paths}
