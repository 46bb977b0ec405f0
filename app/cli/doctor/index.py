"""Check the index, on disk or in PostgreSQL: it exists, is intact, and fits the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from app.bootstrap.indexing import make_recipe, make_snapshots
from app.cli.doctor.finding import Finding, fail, ok, warn
from app.config.settings import Settings
from app.domain.errors import FingerprintMismatch, IndexingError, SnapshotDamaged
from app.storage.disk.snapshot_store import SnapshotStore
from app.storage.manifest import Manifest

_REINDEX = "run make reindex"


def check_index_on_disk(settings: Settings, tell_bytes: Callable[[int], None]) -> Iterator[Finding]:
    """Check the index in `INDEX_DIR`.

    Args:
        tell_bytes: called with the size of the served index, if there is one.
    """
    snapshots = make_snapshots(settings)
    try:
        current = snapshots.current_id()
        if current is None:
            yield _none_yet(settings, snapshots)
            return
        snapshot = snapshots.open(current)
        snapshot.verify()
    except SnapshotDamaged as damage:
        # The error's text says what to do.
        yield fail("index", str(damage))
        return
    tell_bytes(snapshot.bytes_on_disk)
    yield from describe(settings, snapshot.manifest)


def describe(settings: Settings, manifest: Manifest) -> Iterator[Finding]:
    """Describe an index that is intact, and check that it fits the settings."""
    recipe = make_recipe(settings)
    try:
        recipe.check_vectors_of(manifest)
    except FingerprintMismatch as mismatch:
        # The error's text says what to do.
        yield fail("index", str(mismatch))
        return
    text = f"{manifest.id} is intact: {manifest.documents:,} documents, {manifest.chunks:,} chunks, "
    yield ok("index", f"{text}{manifest.embedding}, built {_age(manifest.built_at)} ago")
    if manifest.unread_documents:
        unread = f"{manifest.unread_documents:,} documents could not be read"
        yield warn("index", unread, "GET /documents lists them, with the reasons")
    if not recipe.makes_chunks_of(manifest):
        changed = "its chunks were made with other settings (CHUNK_...) or by another version"
        yield warn("index", changed, f"{_REINDEX} to chunk all documents again")


def _none_yet(settings: Settings, snapshots: SnapshotStore) -> Finding:
    if snapshots.ids():
        return fail("index", f"{settings.index.dir} has no file CURRENT", _REINDEX)
    try:
        snapshots.check_writable()
    except IndexingError as error:
        return fail("index", str(error))
    return warn(
        "index",
        f"{settings.index.dir} has no index yet",
        f"{_REINDEX}, or start the service, which builds one",
    )


def _age(built_at: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(built_at)).total_seconds()
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} seconds"
