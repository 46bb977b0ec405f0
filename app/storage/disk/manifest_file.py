"""`manifest.json`, and its own checksum beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from app.domain.errors import SnapshotDamaged
from app.storage.disk.files import read_all, write_synced
from app.storage.manifest import Manifest
from app.storage.stored_forms import SCHEMA_VERSION, ManifestForm

_MANIFEST = "manifest.json"
# As `sha256sum --check` reads it.
_CHECKSUM = "manifest.sha256"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which comes last: a snapshot without one was never finished."""
    content = ManifestForm.of(manifest).model_dump_json(indent=2).encode()
    write_synced(folder / _CHECKSUM, f"{_digest(content)}  {_MANIFEST}\n".encode())
    write_synced(folder / _MANIFEST, content)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a snapshot.

    Raises:
        SnapshotDamaged: it is not as it was written, or it is one of another version of this service.
    """
    path = folder / _MANIFEST
    content = read_all(path)
    if not (folder / _CHECKSUM).exists():
        _check_layout(folder, content)
    if read_all(folder / _CHECKSUM).split() != [_digest(content).encode(), _MANIFEST.encode()]:
        raise SnapshotDamaged(f"{path} is not as it was written: run make reindex")
    form = _check_layout(folder, content)
    try:
        return ManifestForm.model_validate(form).manifest()
    except ValueError:
        raise SnapshotDamaged(f"{path} cannot be understood: run make reindex") from None


def _check_layout(folder: Path, content: bytes) -> Any:
    try:
        form = orjson.loads(content)
        layout = form["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise SnapshotDamaged(f"{folder / _MANIFEST} cannot be understood: run make reindex") from None
    if layout != SCHEMA_VERSION:
        raise SnapshotDamaged(
            f"the snapshot {folder} has layout {layout}, and this version reads {SCHEMA_VERSION}: "
            "run make reindex"
        )
    return form


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
