"""Look at settings, models, index, documents, room and port, and say what to do, in a line each.

Changes nothing; asks the model provider, if one is set, for one tiny embedding and one tiny answer. Exit
status: 0 nothing has failed; 1 something has; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence

from app.cli.doctor.finding import State
from app.cli.doctor.run import examine


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for programs")
    options = parser.parse_args(arguments)
    # Its findings say it all.
    logging.disable()
    findings = []
    for finding in examine():
        findings.append(finding)
        if not options.json:
            print(finding, flush=True)
    failed = any(finding.state is State.FAIL for finding in findings)
    if options.json:
        print(json.dumps({"ok": not failed, "checks": [finding.as_json() for finding in findings]}, indent=2))
    return 1 if failed else 0
