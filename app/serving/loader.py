"""The contract of what chooses and loads an index."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.serving.served_index import ServedIndex


@dataclass(frozen=True)
class Choice:
    """What to serve.

    Attributes:
        problem: why it is not what `CURRENT` names, or what is wrong with it; None where all is well.
    """

    index: ServedIndex
    problem: str | None


class Loader(Protocol):
    """Where the served index comes from. `open`, `close` and `listen` are for the event loop."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call it when there may be something new, without waiting for the next look; until cancelled."""
        ...

    def clean_up(self) -> None:
        """Remove what servers that were killed left over."""
        ...

    def choose(self, served: ServedIndex | None) -> Choice | None:
        """The index to serve; None where there is none, and the first is to be built.

        Raises:
            IndexingError: there is none that can be served.
            DatabaseUnavailable: nothing can be asked, not even the one that is served.
        """
        ...

    def scrub(self, index: ServedIndex, stopped: threading.Event) -> None:
        """Read what was loaded unread; damage counts from the next `choose` on."""
        ...
