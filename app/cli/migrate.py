"""Copy the served index between the disk and PostgreSQL, without embedding anything again.

--to postgres copies from INDEX_DIR to the database of DATABASE_URL, and --to disk the other way. The target
keeps serving its own index until the copy is complete and answers. Exit status: 0 done; 1 failed, and the
target's index is unchanged; 2 wrong usage or setting.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from app.bootstrap.indexing import make_disk_parts, make_postgres_storage
from app.cli.progress import show_progress
from app.cli.runner import DONE, cancelled_by_signals, exit_status
from app.config.settings import SettingsError, load_settings
from app.indexing.migration import migrate


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Copy the index, and return the exit status."""
    options = _parser(program).parse_args(arguments)
    cancelled = cancelled_by_signals()
    return exit_status(lambda: _migrate(options, cancelled))


def _parser(program: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", choices=("postgres", "disk"), required=True, help="where to copy the index")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for programs")
    return parser


def _migrate(options: argparse.Namespace, cancelled: threading.Event) -> int:
    settings = load_settings()
    if settings.database.url is None:
        raise SettingsError("DATABASE_URL: set it to the database to copy to or from")
    disk, postgres = make_disk_parts(settings).storage, make_postgres_storage(settings)
    source, target = (disk, postgres) if options.to == "postgres" else (postgres, disk)
    with show_progress(sys.stderr) as on_progress:
        done = migrate(source, target, on_progress, cancelled)
    print(done.as_json() if options.json else done.as_text())
    return DONE
