"""Questions that never repeat: SciFact's claims and SQuAD's questions, followed by pairs of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import count, islice
from pathlib import Path

from benchmarks import datasets

_SEED = 20261120


def write_questions(path: Path, number: int) -> Path:
    """Write so many questions to a file, one per line as a JSON string."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(question)}\n" for question in islice(all_questions(), number))
    return path


@cache
def single_questions() -> list[str]:
    """List the distinct questions of the data sets, always in the same order."""
    squad = datasets.squad2()
    texts = [
        *datasets.scifact().queries.values(),
        *(question.text for question in squad.questions),
        *squad.unanswerable,
    ]
    distinct = list(dict.fromkeys(text.strip() for text in texts))
    random.Random(_SEED).shuffle(distinct)
    return distinct


def all_questions() -> Iterator[str]:
    """Yield questions without end."""
    singles = single_questions()
    yield from singles
    for distance in count(1):
        for place, question in enumerate(singles):
            yield f"{question} {singles[(place + distance) % len(singles)]}"
