"""Choosing and loading a snapshot: the one that `CURRENT` names, or else the newest intact one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.domain.errors import FingerprintMismatch, IndexingError, SnapshotDamaged
from app.serving.loader import Choice
from app.serving.served_index import ServedIndex
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot import Snapshot
from app.storage.disk.snapshot_store import Signature, SnapshotStore

logger = logging.getLogger(__name__)

# The engine may have failed on intact files for lack of memory, so it tries again after this time.
ENGINE_RETRY_S = 60.0
_GONE = "there is no index on the disk any more: run make reindex"


@dataclass(frozen=True)
class _Damage:
    """Damage of a snapshot; it is checked again when one of the files has changed, or after `expires`."""

    problem: str
    signature: Signature
    expires: float = math.inf


class _EngineFailure(SnapshotDamaged):
    """The engine cannot load a snapshot whose files are intact."""


class SnapshotLoader:
    """A `Loader` of snapshots.

    It remembers damaged snapshots, so that they are not read again until their files change.
    """

    def __init__(
        self,
        snapshots: SnapshotStore,
        open_index: Callable[[Snapshot], ServedIndex],
        scratch: Scratch,
        *,
        engine_retry_s: float = ENGINE_RETRY_S,
    ) -> None:
        self._snapshots = snapshots
        self._scratch = scratch
        self._open_index = open_index
        self._engine_retry_s = engine_retry_s
        self._damaged: dict[str, _Damage] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def listen(self, heard: Callable[[], None]) -> None:
        """Return at once: writers of snapshots send no notification, so only polling finds a new one."""

    def clean_up(self) -> None:
        self._scratch.remove_left_over()

    def choose(self, served: ServedIndex | None) -> Choice | None:
        """Choose the current snapshot, or the newest intact one if it is damaged; see `Loader`.

        A current snapshot with another embedding model than the configured one is never replaced by an older
        snapshot: the settings are wrong, not the index.

        Raises:
            FingerprintMismatch: the current snapshot does not fit the settings.
            SnapshotDamaged: no snapshot is intact, and none is served.
            IndexReadOnly: there is no snapshot, and none can be built.
        """
        wanted, problems = self._wanted()
        candidates = self._snapshots.candidates()
        if not candidates and not problems:
            if served is None:
                self._snapshots.check_writable()
                return None
            return Choice(served, f"{_GONE}; {served.id} is still served")
        for snapshot_id in candidates:
            try:
                index = self._load_unless_served(snapshot_id, served)
            except SnapshotDamaged as damage:
                problems.append(str(damage))
            except FingerprintMismatch as mismatch:
                if snapshot_id == wanted:
                    raise
                problems.append(str(mismatch))
            else:
                if snapshot_id == wanted:
                    return Choice(index, None)
                return Choice(index, f"{problems[0]}; until then {snapshot_id} is served")
        if served is None:
            raise SnapshotDamaged(problems[0])
        return Choice(served, f"{problems[0]}; no other index is intact, and {served.id} is still served")

    def scrub(self, index: ServedIndex, stopped: threading.Event) -> None:
        signature = self._snapshots.signature(index.id)
        try:
            self._snapshots.open(index.id).scrub(stopped)
        except SnapshotDamaged as damage:
            self._damaged[index.id] = _Damage(str(damage), signature)

    def _wanted(self) -> tuple[str | None, list[str]]:
        try:
            wanted = self._snapshots.current_id()
        except SnapshotDamaged as damage:
            return None, [str(damage)]
        if wanted is None and self._snapshots.ids():
            return None, ["the index has no file CURRENT: run make reindex"]
        return wanted, []

    def _load_unless_served(self, snapshot_id: str, served: ServedIndex | None) -> ServedIndex:
        known = self._damaged.get(snapshot_id)
        if known is None and served is not None and served.id == snapshot_id:
            return served
        signature = self._snapshots.signature(snapshot_id)
        if known and known.signature == signature and time.monotonic() < known.expires:
            raise SnapshotDamaged(known.problem)
        try:
            snapshot = self._snapshots.open(snapshot_id)
            if known:
                snapshot.verify()  # in full: its modification times did not show the damage
                self._damaged.pop(snapshot_id)
            if served is not None:
                snapshot.warm()
            return self._load(snapshot)
        except _EngineFailure as failure:
            expires = time.monotonic() + self._engine_retry_s
            self._damaged[snapshot_id] = _Damage(
                str(failure), self._snapshots.signature(snapshot_id), expires
            )
            raise
        except SnapshotDamaged as damage:
            self._damaged[snapshot_id] = _Damage(str(damage), signature)
            raise

    def _load(self, snapshot: Snapshot) -> ServedIndex:
        try:
            index = self._open_index(snapshot)
            try:
                index.engine.self_test()
            except BaseException:  # after any failure, nothing else would close it
                index.close()
                raise
        except (IndexingError, OSError):
            raise
        except Exception as error:  # the engine's errors have no class of their own
            logger.error("index: %s cannot be loaded", snapshot.path, exc_info=True)
            snapshot.verify()
            raise _EngineFailure(
                f"the engine cannot load the snapshot {snapshot.path}, although its files are intact: "
                "run make reindex"
            ) from error
        return index
