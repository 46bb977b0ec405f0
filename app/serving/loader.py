"""The contract for choosing and loading the index to serve."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.serving.served_index import ServedIndex


@dataclass(frozen=True)
class Choice:
    """The index to serve.

    Attributes:
        problem: the reason why it is not the published index, or what is wrong with it; None if all is well.
    """

    index: ServedIndex
    problem: str | None


class Loader(Protocol):
    """The source of served indexes; its coroutines run in the event loop, its other methods in a thread."""

    async def open(self) -> None:
        """Open connections, if the loader needs any."""
        ...

    async def close(self) -> None:
        """Close what `open` opened."""
        ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` when there may be a new index, ahead of the next poll, until cancelled."""
        ...

    def clean_up(self) -> None:
        """Remove the files that killed servers left behind."""
        ...

    def choose(self, served: ServedIndex | None) -> Choice | None:
        """Choose and load the index to serve; None if there is none and the first one must be built.

        Raises:
            IndexingError: no index can be served.
            DatabaseUnavailable: no database can be reached, so that not even `served` can answer.
        """
        ...

    def scrub(self, index: ServedIndex, stopped: threading.Event) -> None:
        """Verify the files that were loaded unread; `choose` takes the damage found into account."""
        ...
