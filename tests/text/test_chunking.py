"""Cutting pages into chunks: sizes, headings, offsets, tables and ids."""

from __future__ import annotations

import pytest

from app.documents.pages import Page, markdown_headings
from app.domain.chunk import Chunk, ChunkUnit
from app.text.chunking import Chunking, cut
from app.text.tokenizer import load_tokenizer

HANDBOOK = """\
Before any heading.

# Handbook

Intro.

## Leave

### Parental

Sixteen weeks.

## Travel

Second class.
"""


def markdown(text: str, number: int | None = None) -> Page:
    return Page(number, text, tuple(markdown_headings(text)))


def split(
    *pages: Page, size: int = 1000, overlap: int = 0, unit: ChunkUnit = ChunkUnit.CHARACTERS
) -> list[Chunk]:
    return list(cut("folder/name.md", pages, Chunking(size, overlap, unit)))


def test_a_chunk_has_one_heading_path() -> None:
    """A chunk never spans a heading, so its path holds for all of it."""
    assert [(chunk.heading, chunk.text) for chunk in split(markdown(HANDBOOK))] == [
        (None, "Before any heading."),
        ("Handbook", "Intro."),
        ("Handbook > Leave > Parental", "Sixteen weeks."),
        ("Handbook > Travel", "Second class."),
    ]


def test_offsets_find_the_text_in_its_page() -> None:
    """A chunk's offsets delimit its text."""
    text = "# A\n\n" + " ".join(f"word{number}." for number in range(500)) + "\n\n## B\n\nThe end.\n"
    chunks = split(markdown(text), size=200, overlap=40)
    assert len(chunks) > 10
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text


def test_metadata_locates_a_chunk() -> None:
    """It names document, page and heading path."""
    (chunk,) = split(markdown("Text.", number=7))
    assert (chunk.document, chunk.page, chunk.heading) == ("folder/name.md", 7, None)


def test_the_heading_path_continues_on_the_next_page() -> None:
    """A section of a PDF does not end with the page."""
    chunks = split(markdown("# A\n\n## B\n\nOne.", 1), markdown("Two.\n\n## C\n\nThree.", 2))
    assert [(chunk.page, chunk.heading) for chunk in chunks] == [
        (1, "A > B"),
        (2, "A > B"),
        (2, "A > C"),
    ]


def test_the_heading_path_is_embedded_with_the_text() -> None:
    """It is part of what the embedding model and BM25 see."""
    chunks = split(markdown(HANDBOOK))
    assert chunks[0].embed_text == "Before any heading."
    assert chunks[2].embed_text == "Handbook > Leave > Parental\nSixteen weeks."


def test_a_heading_with_nothing_below_is_text() -> None:
    """A slide with nothing but a title can be found."""
    chunks = split(markdown("# Deck\n\n## Thank you\n\n## Questions\n"))
    assert [(chunk.heading, chunk.text) for chunk in chunks] == [
        ("Deck", "## Thank you"),
        ("Deck", "## Questions"),
    ]


@pytest.mark.parametrize("is_markdown", [True, False])
def test_no_chunk_exceeds_the_chunk_size_in_characters(is_markdown: bool) -> None:
    """The limit holds for Markdown and for plain text."""
    text = "word " * 3000 + "x" * 5000 + "。" * 3000
    chunks = split(Page(None, text, is_markdown=is_markdown), size=300, overlap=30)
    assert max(len(chunk.text) for chunk in chunks) <= 300


def test_sizes_can_be_in_tokens() -> None:
    """The limit then holds for the number of tokens."""
    text = " ".join(f"antidisestablishment{number}" for number in range(400))
    chunks = split(Page(None, text, is_markdown=False), size=60, overlap=0, unit=ChunkUnit.TOKENS)
    lengths = [len(load_tokenizer().encode(chunk.text, add_special_tokens=False).ids) for chunk in chunks]
    assert max(lengths) <= 60
    assert len(chunks) > 5


def test_rows_of_a_table_keep_their_header() -> None:
    """Without it, the meaning of a row's cells is lost."""
    header = "| Code | Meaning |\n| --- | --- |\n"
    rows = "".join(f"| WC-{number:03} | The meaning of number {number} |\n" for number in range(60))
    chunks = split(markdown(header + rows), size=400)
    assert len(chunks) > 3
    for chunk in chunks:
        assert chunk.text.startswith(header)
        assert chunk.text.count("| Code |") == 1
    assert "WC-000" in chunks[0].text
    assert "WC-059" in chunks[-1].text


def test_a_wide_header_is_not_repeated() -> None:
    """It would fill most of each chunk."""
    header = "| " + " | ".join(f"Column {number}" for number in range(100)) + " |\n" + "| --- " * 100 + "|\n"
    row = "| " + " | ".join(["7"] * 100) + " |\n"
    chunks = split(markdown(header + row * 50), size=1000)
    assert max(len(chunk.text) for chunk in chunks) <= 1000


def test_long_texts_are_cut_in_blocks_without_loss() -> None:
    """Without blocks, the time would grow with the square of the length. The text may have no blanks."""
    for text in ("word " * 60_000, "x" * 300_000, "A sentence with words.\n" * 12_000):
        chunks = split(Page(None, text, is_markdown=False), overlap=0)
        assert sum(len(chunk.text.replace(" ", "").replace("\n", "")) for chunk in chunks) == len(
            text.replace(" ", "").replace("\n", "")
        )
        for chunk in chunks:
            assert text[chunk.start : chunk.end] == chunk.text


def test_every_chunk_of_a_large_table_has_its_header() -> None:
    """The header is repeated even where the text is cut into blocks."""
    header = "| Code | Meaning |\n| --- | --- |\n"
    rows = "".join(f"| WC-{number:05} | Meaning {number} |\n" for number in range(20_000))
    chunks = split(markdown(header + rows))
    assert all(chunk.text.startswith(header) for chunk in chunks)


def test_ids_are_stable_and_distinct() -> None:
    """The same text has the same id in every build, and a repeated text has another id."""
    page = markdown("# A\n\nSame.\n\n# B\n\nSame.\n\n# A\n\nSame.\n")
    ids = [chunk.id for chunk in split(page)]
    assert len(set(ids)) == 3
    assert ids == [chunk.id for chunk in split(page)]
    moved = markdown("# New first\n\nText.\n\n" + page.text)
    assert ids == [chunk.id for chunk in split(moved)][1:]
