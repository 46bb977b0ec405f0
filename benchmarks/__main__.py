"""`python -m benchmarks [name ...]`: run measurements, all of them by default."""

from __future__ import annotations

import argparse
import sys

from benchmarks import load, quality, retrieval
from benchmarks.datasets import MissingData

MEASUREMENTS = {"load": load.measure, "retrieval": retrieval.measure, "quality": quality.measure}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(MEASUREMENTS)}")
    names = parser.parse_args().names or list(MEASUREMENTS)
    if unknown := set(names) - set(MEASUREMENTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(MEASUREMENTS)}")
    try:
        reports = [MEASUREMENTS[name]() for name in names]
    except MissingData as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if all(report.reached for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
