"""Markers: only those that name a passage."""

from __future__ import annotations

import pytest

from app.schemas import Citation
from app.synthesis.contract import resolve_markers

PASSAGES = [
    Citation(marker=marker, document="a", page=None, heading=None, text="t", score=1, chunk_id="1")
    for marker in (1, 2)
]


@pytest.mark.parametrize(
    ("answer", "resolved"),
    [
        ("One [1] and two [2].", "One [1] and two [2]."),
        ("One [3].", "One."),
        ("Both [1, 2].", "Both [1][2]."),
        ("Both [1,9].", "Both [1]."),
        ("See [1][7].", "See [1]."),
        ("A list [a] stays.", "A list [a] stays."),
    ],
)
def test_markers(answer: str, resolved: str) -> None:
    assert resolve_markers(answer, PASSAGES) == resolved


@pytest.mark.parametrize("filling", [" ", "[", "1", "[1,", "[ "])
def test_a_model_may_send_anything(filling: str) -> None:
    """Also a number that no one could count to, or 200,000 blanks: neither an error nor an endless search."""
    answer = filling * (200_000 // len(filling))
    assert len(resolve_markers(f"{answer} [1]", PASSAGES)) > 100_000
