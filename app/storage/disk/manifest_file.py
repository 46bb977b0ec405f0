"""`manifest.json`, and its own checksum beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from app.domain.errors import SnapshotDamaged
from app.storage.disk.files import read_all, write_synced
from app.storage.manifest import REBUILD, SCHEMA_VERSION, Manifest

_MANIFEST = "manifest.json"
# As `sha256sum --check` reads it.
_CHECKSUM = "manifest.sha256"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The manifest is written last: a snapshot without one was never finished."""
    content = manifest.model_dump_json(indent=2).encode()
    write_synced(folder / _CHECKSUM, f"{_digest(content)}  {_MANIFEST}\n".encode())
    write_synced(folder / _MANIFEST, content)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a snapshot, exactly as it was written.

    Raises:
        SnapshotDamaged: it is not, or it is one of another version of this service.
    """
    path = folder / _MANIFEST
    content = read_all(path)
    if not (folder / _CHECKSUM).exists():
        _check_layout(folder, content)
    if read_all(folder / _CHECKSUM).split() != [_digest(content).encode(), _MANIFEST.encode()]:
        raise SnapshotDamaged(f"{path} is not as it was written: {REBUILD}")
    _check_layout(folder, content)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError:
        raise SnapshotDamaged(f"{path} cannot be understood: {REBUILD}") from None


def _check_layout(folder: Path, content: bytes) -> None:
    try:
        layout = json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise SnapshotDamaged(f"{folder / _MANIFEST} cannot be understood: {REBUILD}") from None
    if layout != SCHEMA_VERSION:
        raise SnapshotDamaged(
            f"the snapshot {folder} has layout {layout}, and this version reads {SCHEMA_VERSION}: {REBUILD}"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
