"""Build the next index from the documents, beside the served one, and swap it in.

Only documents that changed since the previous index are read and embedded. Exit status: 0 done; 1 failed, and
the served index is unchanged; 2 wrong usage or setting; 3 done, but some documents could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence

from app.bootstrap.indexing import make_indexer, make_storage
from app.cli.progress import show_progress
from app.cli.runner import DONE, FAILED, cancelled_by_signals, exit_status, lower_priority
from app.config.settings import Settings, load_settings

DONE_WITH_PROBLEMS = 3

# The time between two checks that the watched folder still exists.
_LOOK_MS = 500


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the command, and return its exit status."""
    options = _parse(arguments, program)
    lower_priority()
    cancelled = cancelled_by_signals()
    return exit_status(lambda: _run(options, cancelled))


def _run(options: argparse.Namespace, cancelled: threading.Event) -> int:
    settings = load_settings()
    if options.watch:
        return _watch(settings, options, cancelled)
    return _once(settings, options, cancelled)


def _parse(arguments: Sequence[str] | None, program: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--plan", action="store_true", help="show what would change and what it would cost; write nothing"
    )
    what.add_argument("--list", action="store_true", help="list the indexes that are kept")
    what.add_argument(
        "--rollback",
        nargs="?",
        const="",
        metavar="ID",
        help="serve a kept index again; without ID, the previous one",
    )
    what.add_argument(
        "--watch", action="store_true", help="keep running, and reindex whenever documents change"
    )
    parser.add_argument("--full", action="store_true", help="reuse nothing from the previous index")
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish the index even if more than MAX_SHRINK of the documents would be gone",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for programs")
    options = parser.parse_args(arguments)
    if (options.full or options.force) and (options.list or options.rollback is not None):
        parser.error("--full and --force apply only to building an index")
    return options


def _once(settings: Settings, options: argparse.Namespace, cancelled: threading.Event) -> int:
    if options.list:
        return _list(settings, as_json=options.json)
    if options.rollback is not None:
        return _roll_back(settings, options)
    return _build(settings, options, cancelled)


def _build(settings: Settings, options: argparse.Namespace, cancelled: threading.Event) -> int:
    indexer = make_indexer(settings)
    with show_progress(sys.stderr) as on_progress:
        if options.plan:
            report = indexer.plan(on_progress, cancelled, full=options.full, force=options.force)
        else:
            report = indexer.build(on_progress, cancelled, full=options.full, force=options.force)
    print(report.as_json() if options.json else report.as_text())
    return DONE_WITH_PROBLEMS if report.failed else DONE


def _list(settings: Settings, *, as_json: bool) -> int:
    summaries = make_storage(settings).summaries()
    if as_json:
        print(f"[{', '.join(summary.as_json() for summary in summaries)}]")
        return DONE
    for summary in summaries:
        print(summary)
    if not summaries:
        print(
            f"There is no index in {settings.index.dir if settings.database.url is None else 'the database'}"
        )
    return DONE


def _roll_back(settings: Settings, options: argparse.Namespace) -> int:
    snapshot = make_indexer(settings).roll_back(options.rollback or None)
    print(json.dumps({"index": snapshot}) if options.json else f"Index {snapshot} is served again")
    return DONE


def _watch(settings: Settings, options: argparse.Namespace, cancelled: threading.Event) -> int:
    # Its import takes 0.08 s, and is not needed for a single run.
    from watchfiles import watch  # noqa: PLC0415

    status = None
    folder = settings.documents.dir
    if folder.is_dir():
        print(f"Watching {folder}; press Ctrl-C to stop", file=sys.stderr, flush=True)
        for changes in watch(
            folder,
            # Hidden files count, too: a Kubernetes volume changes through a symbolic link with a hidden name.
            watch_filter=None,
            stop_event=cancelled,
            raise_interrupt=False,
            # The first run begins after the first timeout: the watch exists by then, and no change is missed.
            yield_on_timeout=True,
            rust_timeout=_LOOK_MS,
        ):
            if not folder.is_dir():
                break
            if changes or status is None:
                status = exit_status(lambda: _once(settings, options, cancelled))
                options.full = False
    if not folder.is_dir():
        print(f"Failed: there is no folder {folder} to watch", file=sys.stderr)
        return FAILED
    return FAILED if status is None else status
