"""Look at settings, models, index, documents, room and port, and say what to do, in a line each.

Changes nothing; asks the model provider, if one is set, for one tiny embedding and one tiny answer. Exit
status: 0 nothing has failed; 1 something has; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

# Started as a file, Python only knows this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for programs")
    arguments = parser.parse_args()
    # Its findings say it all.
    logging.disable()

    from app.cli.doctor.finding import State  # noqa: PLC0415
    from app.cli.doctor.run import examine  # noqa: PLC0415

    findings = []
    for finding in examine():
        findings.append(finding)
        if not arguments.json:
            print(finding, flush=True)
    failed = any(finding.state is State.FAIL for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": not failed, "checks": [finding.as_json() for finding in findings]}, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
