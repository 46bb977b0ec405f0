"""Markers: only those that name a passage, also in a text that comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.answer import Passage
from app.query.synthesis.markers import MarkerFilter, resolve_markers

PASSAGES = [
    Passage(marker=marker, document="a", page=None, heading=None, text="t", score=1, chunk_id="1")
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
        ("See [123456].", "See."),
        ("A list [a] stays.", "A list [a] stays."),
        ("Blanks before   [3] go.", "Blanks before go."),
        ("An open [1", "An open [1"),
    ],
)
def test_markers_are_resolved(answer: str, resolved: str) -> None:
    assert resolve_markers(answer, PASSAGES) == resolved


@given(st.lists(st.text(alphabet=" \t\n[]0129,a.", max_size=6), max_size=30))
def test_splitting_a_text_does_not_change_the_result(pieces: list[str]) -> None:
    """A streamed answer equals the answer that is sent at once."""
    markers = MarkerFilter(PASSAGES)
    streamed = "".join(markers.feed(piece) for piece in pieces) + markers.end()
    assert streamed == resolve_markers("".join(pieces), PASSAGES)


@pytest.mark.parametrize("text", ["Plain text. ", "A bracket [a", "[1] ", "Numbers 1, 2 and 3."])
def test_only_text_that_may_become_a_marker_is_held_back(text: str) -> None:
    """Trailing blanks are held back as well, since they are removed with a marker."""
    assert MarkerFilter(PASSAGES).feed(text).rstrip() == text.rstrip()


@pytest.mark.parametrize("filling", [" ", "[", "1", "[1,", "[ ", "[1, 1"])
def test_any_text_is_processed_in_linear_time(filling: str) -> None:
    """Huge numbers and 200,000 blanks cause neither an error nor an endless search."""
    answer = filling * (200_000 // len(filling))
    assert len(resolve_markers(f"{answer} [1]", PASSAGES)) > 100_000
