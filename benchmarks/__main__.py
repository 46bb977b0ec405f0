"""`python -m benchmarks [name ...]` runs measurements, by default all except the longest."""

from __future__ import annotations

import argparse
import sys

from benchmarks import (
    cost,
    flips,
    load,
    offline,
    online,
    overhead,
    postgres,
    postgres_scale,
    quality,
    replicas,
    retrieval,
    soak,
    start,
    swaps,
)
from benchmarks.datasets import MissingData

MEASUREMENTS = {
    "load": load.measure,
    "retrieval": retrieval.measure,
    "quality": quality.measure,
    "online": online.measure,
    "overhead": overhead.measure,
    "cost": cost.measure,
    "start": start.measure,
    "offline": offline.measure,
    "soak": soak.measure,
    "swaps": swaps.measure,
    "postgres": postgres.measure,
    "replicas": replicas.measure,
    "flips": flips.measure,
    "postgres_scale": postgres_scale.measure,
}
_LONG = {"soak", "swaps", "postgres", "replicas", "flips", "postgres_scale"}
BY_DEFAULT = [name for name in MEASUREMENTS if name not in _LONG]


def main() -> int:
    """Run measurements; return 0 if all figures reach their bars, 1 if not, 2 if data is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(MEASUREMENTS)}")
    names = parser.parse_args().names or BY_DEFAULT
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
