"""Copy the served index between the disk and PostgreSQL, without embedding anything again.

--to postgres: from INDEX_DIR to the database of DATABASE_URL; --to disk: the other way. The target goes on
serving its own index until the copy is complete and answers. Exit status: 0 done; 1 failed, and the target's
index is as it was; 2 wrong usage or setting.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings

DONE, FAILED, WRONG_USAGE = 0, 1, 2

# Started as a file, Python only knows this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    arguments = _parse_arguments()
    cancelled = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _cancel(cancelled))

    from app.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        settings = load_settings()
        if settings.database_url is None:
            raise SettingsError("DATABASE_URL: set it to the database to copy to or from")
    except SettingsError as error:
        print(f"Wrong setting: {error}", file=sys.stderr)
        return WRONG_USAGE
    return _migrate(settings, arguments, cancelled)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", choices=("postgres", "disk"), required=True, help="where to copy the index")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for programs")
    return parser.parse_args()


def _migrate(settings: Settings, arguments: argparse.Namespace, cancelled: threading.Event) -> int:
    from app.assembly.indexing import make_disk_storage, make_postgres_storage  # noqa: PLC0415
    from app.errors import IndexingError  # noqa: PLC0415
    from app.indexing.migration import migrate  # noqa: PLC0415
    from app.progress import show_progress  # noqa: PLC0415

    disk, postgres = make_disk_storage(settings), make_postgres_storage(settings)
    source, target = (disk, postgres) if arguments.to == "postgres" else (postgres, disk)
    try:
        with show_progress(sys.stderr) as on_progress:
            done = migrate(source, target, on_progress, cancelled)
    except IndexingError as error:
        print(f"Failed: {error.reason}", file=sys.stderr)
    except OSError as error:
        print(f"Failed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped at once; the served index is as it was", file=sys.stderr)
    else:
        print(done.as_json() if arguments.json else done.as_text())
        return DONE
    return FAILED


def _cancel(cancelled: threading.Event) -> None:
    """End after what is being done; when asked a second time, at once."""
    if cancelled.is_set():
        raise KeyboardInterrupt
    cancelled.set()


if __name__ == "__main__":
    sys.exit(main())
