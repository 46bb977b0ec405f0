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
def test_markers(answer: str, resolved: str) -> None:
    assert resolve_markers(answer, PASSAGES) == resolved


@given(st.lists(st.text(alphabet=" \t\n[]0129,a.", max_size=6), max_size=30))
def test_however_a_text_is_cut_it_becomes_the_same(pieces: list[str]) -> None:
    """A streamed answer is the answer that would have come at once."""
    markers = MarkerFilter(PASSAGES)
    streamed = "".join(markers.feed(piece) for piece in pieces) + markers.end()
    assert streamed == resolve_markers("".join(pieces), PASSAGES)


@pytest.mark.parametrize("text", ["Plain text. ", "A bracket [a", "[1] ", "Numbers 1, 2 and 3."])
def test_nothing_is_held_back_that_cannot_become_a_marker(text: str) -> None:
    """Beside blanks at the end, which go with a marker that goes."""
    assert MarkerFilter(PASSAGES).feed(text).rstrip() == text.rstrip()


@pytest.mark.parametrize("filling", [" ", "[", "1", "[1,", "[ ", "[1, 1"])
def test_a_model_may_send_anything(filling: str) -> None:
    """Also a number that no one could count to, or 200,000 blanks: neither an error nor an endless search."""
    answer = filling * (200_000 // len(filling))
    assert len(resolve_markers(f"{answer} [1]", PASSAGES)) > 100_000
