"""Which chunks are a document's, and which have a text."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.storage.disk.chunk_points import ChunkPoints

DOCUMENTS = ["a.md", "b/c.md", "ä.pdf"]
TEXTS = ["00", "01", "02"]

# Points are added with their document and text, or removed; between these, there are lookups.
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(DOCUMENTS), st.sampled_from(TEXTS)),
        st.sets(st.integers(0, 30), max_size=5),
        st.none(),
    ),
    max_size=40,
)


def assert_same(points: ChunkPoints, expected: dict[int, tuple[str, str]]) -> None:
    for column, keys, find in ((0, DOCUMENTS, points.of_documents), (1, TEXTS, points.of_texts)):
        for asked in ([], keys[:1], keys, [*keys, "no such"]):
            found = find(asked)
            assert sorted(found) == sorted(point for point, its in expected.items() if its[column] in asked)


@given(_STEPS)
def test_points_are_those_that_were_added_and_not_removed(
    steps: list[tuple[int, str, str] | set[int] | None],
) -> None:
    """This holds at any time, and after any replacement."""
    points, expected = ChunkPoints(), dict[int, tuple[str, str]]()
    for step in steps:
        if step is None:
            assert_same(points, expected)
            continue
        if isinstance(step, set):
            gone = [point for number, point in enumerate(expected) if number in step]
        else:
            gone = [step[0]] if step[0] in expected else []
        points.remove(gone)
        for point in gone:
            del expected[point]
        if isinstance(step, tuple):
            point, document, text = step
            points.add(document, text, point)
            expected[point] = document, text
    assert_same(points, expected)


def test_points_survive_saving(tmp_path: Path) -> None:
    """Points that are added after loading survive it, too."""
    points = ChunkPoints()
    points.add("a.md", "00", 2**64 - 1)
    points.save(tmp_path / "points.npy")
    again = ChunkPoints.load(tmp_path / "points.npy")
    again.add("a.md", "01", 7)
    again.save(tmp_path / "points.npy")
    assert_same(ChunkPoints.load(tmp_path / "points.npy"), {2**64 - 1: ("a.md", "00"), 7: ("a.md", "01")})


def test_a_chunk_without_a_document_belongs_to_none() -> None:
    """LlamaIndex's nodes need no document."""
    points = ChunkPoints()
    points.add(None, "00", 1)
    assert points.of_documents(["a.md"]) == []
    assert points.of_texts(["00"]) == [1]
