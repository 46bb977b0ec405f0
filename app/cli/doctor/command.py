"""Check the settings, models, index, documents, disk and port, and print a line of advice for each problem.

Nothing is changed. If a model provider is set, it is asked for one tiny embedding and one tiny answer. Exit
status: 0 if no check failed; 1 if one did; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence

from app.cli.doctor.finding import State
from app.cli.doctor.run import examine


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Print the finding of each check, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for programs")
    options = parser.parse_args(arguments)
    # The findings already report every problem.
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
