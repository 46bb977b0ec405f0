"""Progress of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """A part of a run, in the order in which they come."""

    COMPARE = "compare"
    READ = "read"
    COPY = "copy"
    SAVE = "save"


@dataclass(frozen=True)
class Progress:
    """The state of a run at a moment.

    Attributes:
        done, total: documents; 0 in the last stage, of which nobody knows how far it is.
        chunks: read and embedded, or copied, so far.
    """

    stage: Stage
    done: int = 0
    total: int = 0
    chunks: int = 0

    def __str__(self) -> str:
        if self.stage is Stage.COMPARE:
            return f"{self.done} of {self.total} documents looked at"
        if self.stage is Stage.READ:
            return f"{self.done} of {self.total} documents read, {self.chunks} chunks embedded"
        if self.stage is Stage.COPY:
            return f"{self.done} of {self.total} documents copied, {self.chunks} chunks"
        return "saving and checking the index"


OnProgress = Callable[[Progress], None]
