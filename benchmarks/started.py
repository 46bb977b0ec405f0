"""The modules that a server has imported when it becomes ready: `python -m benchmarks.started`.

It runs `python -m app` in this process, with the settings from the environment, and writes the names of
third-party modules and of the service's own as a JSON list, in the order in which they were imported.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path

from benchmarks.datasets import ROOT
from benchmarks.processes import is_ready


def _imported() -> list[str]:
    found = [
        (name, spec)
        for name, module in list(sys.modules.items())
        if (spec := getattr(module, "__spec__", None)) is not None
    ]
    # A module that is registered under another name than its own cannot be imported by that.
    return [name for name, spec in found if name == spec.name and spec.origin and _counts(Path(spec.origin))]


def _counts(origin: Path) -> bool:
    return "site-packages" in origin.parts or origin.is_relative_to(ROOT / "app")


def _report_when_ready() -> None:
    while not is_ready(int(os.environ["PORT"]), "/health"):
        time.sleep(0.05)
    sys.stdout.write(json.dumps(_imported()))
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Run the server until it is ready, and print its modules."""
    threading.Thread(target=_report_when_ready, daemon=True).start()
    runpy.run_module("app", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
