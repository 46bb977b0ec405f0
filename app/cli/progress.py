"""The progress of a run: bars on a terminal, and a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from app.indexing.progress import OnProgress, Progress

_LINE_EVERY_S = 5.0


@contextmanager
def show_progress(stream: TextIO) -> Iterator[OnProgress]:
    """Yield a function that shows the progress it is called with on a stream."""
    if stream.isatty():
        # Its import takes 0.1 s, and is not needed without a terminal.
        from app.cli.progress_bars import bars_on  # noqa: PLC0415

        with bars_on(stream) as show:
            yield show
    else:
        yield _lines(stream)


def _lines(stream: TextIO) -> Callable[[Progress], None]:
    shown_at = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_at
        if progress.done == progress.total or time.monotonic() - shown_at >= _LINE_EVERY_S:
            shown_at = time.monotonic()
            print(progress, file=stream, flush=True)

    return show
