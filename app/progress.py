"""A build's progress: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from app.indexer import Progress, Stage

_LINE_EVERY_S = 5.0
_LABELS = {Stage.READ: "Reading documents", Stage.EMBED: "Embedding chunks"}


@contextmanager
def show_progress(stream: TextIO) -> Iterator[Callable[[Progress], None]]:
    if stream.isatty():
        with _bars(stream) as show:
            yield show
    else:
        yield _lines(stream)


@contextmanager
def _bars(stream: TextIO) -> Iterator[Callable[[Progress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(file=stream)) as bars:
        tasks: dict[Stage, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(_LABELS[progress.stage], total=progress.total)
            bars.update(tasks[progress.stage], completed=progress.done)

        yield show


def _lines(stream: TextIO) -> Callable[[Progress], None]:
    shown_at = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_at
        if progress.done == progress.total or time.monotonic() - shown_at >= _LINE_EVERY_S:
            shown_at = time.monotonic()
            print(progress, file=stream, flush=True)

    return show
