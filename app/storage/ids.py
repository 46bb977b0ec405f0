"""The ids of indexes, on disk and in a database: they tell the order in which indexes were built."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.domain.errors import SnapshotNotFound

ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}", re.ASCII)

_TIME = "%Y%m%dT%H%M%SZ"


def next_id(ids: Sequence[str]) -> str:
    """Return an id later than all others, also within a second or after the clock was set back.

    Args:
        ids: oldest first.
    """
    now = datetime.now(UTC)
    if ids:
        newest = datetime.strptime(ids[-1].split("-")[0], _TIME).replace(tzinfo=UTC)
        now = max(now, newest + timedelta(seconds=1))
    return f"{now:{_TIME}}-{secrets.token_hex(3)}"


def candidates(ids: Sequence[str], current: str | None) -> list[str]:
    """Return the ids in the order in which they stand in for each other.

    The one to be served comes first, then older ones, newest first; those that are newer come last, because
    an operator who rolls back has refused them.
    """
    newest_first = sorted({*ids, *filter(None, [current])}, reverse=True)
    return sorted(newest_first, key=lambda index_id: current is not None and index_id > current)


def rollback_target(wanted: str | None, ids: Sequence[str], current: str | None) -> str:
    """Return the id of the index to go back to.

    Args:
        wanted: by default the newest that is older than the current one.
        ids: oldest first.

    Raises:
        SnapshotNotFound: there is none such; names those there are.
    """
    there_are = f"there are {', '.join(ids)}" if ids else "there are none at all"
    if wanted is None:
        older = [index_id for index_id in ids if current and index_id < current]
        if not older:
            raise SnapshotNotFound(
                f"there is no snapshot older than the served one to go back to; {there_are}"
            )
        return older[-1]
    if wanted not in ids:
        raise SnapshotNotFound(f"there is no snapshot {wanted}; {there_are}")
    return wanted
