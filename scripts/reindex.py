"""Build the next index from the documents, beside the one that is served, and swap it in.

Exit status: 0 done; 1 failed, and the served index is as it was; 2 wrong usage or setting; 3 done, but some
documents could not be read.

The reader processes import this module again; so that they start fast, it imports little by itself.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.indexer import Report

DONE, FAILED, WRONG_USAGE, DONE_WITH_PROBLEMS = 0, 1, 2, 3

# Started as a file, Python only knows this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report as one JSON object, for programs"
    )
    arguments = parser.parse_args()

    cancelled = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _cancel(cancelled))

    from app.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        settings = load_settings()
    except SettingsError as error:
        print(f"Wrong setting: {error}", file=sys.stderr)
        return WRONG_USAGE

    from app.assembly import make_indexer  # noqa: PLC0415
    from app.errors import IndexingError  # noqa: PLC0415
    from app.progress import show_progress  # noqa: PLC0415

    indexer = make_indexer(settings)
    try:
        with show_progress(sys.stderr) as on_progress:
            report = indexer.build(on_progress, cancelled)
    except IndexingError as error:
        print(f"Failed: {error.reason}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"Failed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("Stopped at once; the served index is as it was", file=sys.stderr)
        return FAILED
    print(_as_json(report) if arguments.json else _as_text(report))
    return DONE_WITH_PROBLEMS if report.unread else DONE


def _cancel(cancelled: threading.Event) -> None:
    """End after what is being done; when asked a second time, at once."""
    if cancelled.is_set():
        raise KeyboardInterrupt
    cancelled.set()


def _as_text(report: Report) -> str:
    indexed = len(report.documents) - len(report.unread)
    lines = [f"Index {report.snapshot}: {indexed} documents, {report.chunks} chunks, {report.seconds:.1f} s"]
    if report.unread:
        lines.append(f"{len(report.unread)} could not be read:")
        lines.extend(f"  {record.name}: {record.problem} ({record.status})" for record in report.unread)
    return "\n".join(lines)


def _as_json(report: Report) -> str:
    import json  # noqa: PLC0415

    return json.dumps(
        {
            "index": report.snapshot,
            "documents": len(report.documents) - len(report.unread),
            "chunks": report.chunks,
            "seconds": round(report.seconds, 3),
            "unread": [record.model_dump(mode="json") for record in report.unread],
        }
    )


if __name__ == "__main__":
    sys.exit(main())
