"""The command `rag-service`, which runs one of several commands.

Reader and worker processes import the main module again, and this one with it. It imports only the standard
library, so that they start fast.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from app import __version__

_INTERRUPTED = 1

# The module of each command, which has a `main`, and its summary.
_COMMANDS = {
    "serve": ("app.cli.serve", "serve on HOST:PORT"),
    "reindex": ("app.cli.reindex", "build the next index from the documents, and swap it in"),
    "doctor": ("app.cli.doctor.command", "check everything that the service needs, and give advice"),
    "migrate": ("app.cli.migrate", "copy the index between the disk and PostgreSQL"),
    "make-key": ("app.cli.make_key", "make an API key"),
}


def main() -> int:
    """Run the command that `sys.argv` names, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="rag-service",
        description="Ask your documents over HTTP. Settings come from the environment or from .env.",
        epilog="rag-service COMMAND --help shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, (_, summary) in _COMMANDS.items():
        commands.add_parser(command, help=summary, add_help=False)
    # The remaining arguments are for the command's own parser, whose module has not been imported yet.
    command = parser.parse_args(sys.argv[1:2]).command
    return run(command, sys.argv[2:], f"rag-service {command}")


def run(command: str, arguments: Sequence[str], program: str | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
        program: the program's name in the help; by default, the name of the file that was started.
    """
    try:
        module = _import(_COMMANDS[command][0])
    except KeyboardInterrupt:
        print("Interrupted before the command began", file=sys.stderr)
        return _INTERRUPTED
    status: int = module.main(arguments, program)
    return status


def _import(name: str) -> ModuleType:
    # Imports leave hardly any garbage, and looking for it takes 0.3 s of a server's start.
    gc.disable()
    try:
        # Not imported earlier: a server's modules take 2 s, a reindex's 0.5 s, and a key needs none of them.
        return importlib.import_module(name)
    finally:
        gc.enable()
