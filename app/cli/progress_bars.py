"""The progress of a run as bars on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from app.indexing.progress import OnProgress, Progress, Stage

_LABELS = {
    Stage.COMPARE: "Comparing documents",
    Stage.READ: "Reading and embedding",
    Stage.COPY: "Copying",
    Stage.SAVE: "Saving and checking",
}


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the documents and chunks per second."""
        if not task.elapsed or not task.completed:
            return Text()
        rate = f"{task.completed / task.elapsed:.0f}/s"
        if chunks := task.fields["chunks"]:
            rate += f", {chunks:,} chunks, {chunks / task.elapsed:.0f}/s"
        return Text(rate)


@contextmanager
def bars_on(stream: TextIO) -> Iterator[OnProgress]:
    """Yield a function that shows the progress it is called with as bars, one for each stage."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(file=stream)) as bars:
        tasks: dict[Stage, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(
                    _LABELS[progress.stage], total=progress.total or None, chunks=0
                )
            bars.update(tasks[progress.stage], completed=progress.done, chunks=progress.chunks)

        yield show
