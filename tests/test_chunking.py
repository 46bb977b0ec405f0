"""Pages to chunks: sizes, headings, offsets, tables, ids."""

from __future__ import annotations

import pytest
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import MetadataMode, TextNode

from app.chunking import Chunker, Chunking
from app.documents import Document
from app.embeddings.local import load_tokenizer
from app.pages import Page, markdown_headings
from app.schemas import DocumentStatus
from app.settings import ChunkUnit

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
) -> list[TextNode]:
    document = Document("folder/name.md", "0", 0, pages, DocumentStatus.INDEXED)
    return Chunker(chunking=Chunking(size, overlap, unit)).split(document)


def test_each_chunk_has_its_own_heading_path() -> None:
    """A chunk never reaches over a heading, so its path is true for all of it."""
    assert [(node.metadata["heading"], node.text) for node in split(markdown(HANDBOOK))] == [
        (None, "Before any heading."),
        ("Handbook", "Intro."),
        ("Handbook > Leave > Parental", "Sixteen weeks."),
        ("Handbook > Travel", "Second class."),
    ]


def test_offsets_find_the_text_in_its_page() -> None:
    text = "# A\n\n" + " ".join(f"word{number}." for number in range(500)) + "\n\n## B\n\nThe end.\n"
    nodes = split(markdown(text), size=200, overlap=40)
    assert len(nodes) > 10
    for node in nodes:
        assert text[node.start_char_idx : node.end_char_idx] == node.text


def test_metadata_says_where_a_chunk_is() -> None:
    (node,) = split(markdown("Text.", number=7))
    assert node.metadata == {"document": "folder/name.md", "format": "md", "page": 7, "heading": None}
    assert node.ref_doc_id == "folder/name.md"


def test_the_heading_path_goes_on_over_pages() -> None:
    """A section of a PDF does not end with the page."""
    nodes = split(markdown("# A\n\n## B\n\nOne.", 1), markdown("Two.\n\n## C\n\nThree.", 2))
    assert [(node.metadata["page"], node.metadata["heading"]) for node in nodes] == [
        (1, "A > B"),
        (2, "A > B"),
        (2, "A > C"),
    ]


def test_the_heading_path_is_embedded_with_the_text() -> None:
    nodes = split(markdown(HANDBOOK))
    assert nodes[0].get_content(MetadataMode.EMBED).strip() == "Before any heading."
    assert nodes[2].get_content(MetadataMode.EMBED) == "Handbook > Leave > Parental\nSixteen weeks."


def test_a_heading_with_nothing_below_is_text() -> None:
    """A slide with nothing but a title can be found."""
    nodes = split(markdown("# Deck\n\n## Thank you\n\n## Questions\n"))
    assert [(node.metadata["heading"], node.text) for node in nodes] == [
        ("Deck", "## Thank you"),
        ("Deck", "## Questions"),
    ]


@pytest.mark.parametrize("is_markdown", [True, False])
def test_no_chunk_is_larger_than_its_size_in_characters(is_markdown: bool) -> None:
    text = "word " * 3000 + "x" * 5000 + "。" * 3000
    nodes = split(Page(None, text, is_markdown=is_markdown), size=300, overlap=30)
    assert max(len(node.text) for node in nodes) <= 300


def test_sizes_can_be_in_tokens() -> None:
    text = " ".join(f"antidisestablishment{number}" for number in range(400))
    nodes = split(Page(None, text, is_markdown=False), size=60, overlap=0, unit=ChunkUnit.TOKENS)
    lengths = [len(load_tokenizer().encode(node.text, add_special_tokens=False).ids) for node in nodes]
    assert max(lengths) <= 60
    assert len(nodes) > 5


def test_rows_keep_their_header() -> None:
    """Cut off from it, a row does not say what its cells mean."""
    header = "| Code | Meaning |\n| --- | --- |\n"
    rows = "".join(f"| WC-{number:03} | The meaning of number {number} |\n" for number in range(60))
    nodes = split(markdown(header + rows), size=400)
    assert len(nodes) > 3
    for node in nodes:
        assert node.text.startswith(header)
        assert node.text.count("| Code |") == 1
    assert "WC-000" in nodes[0].text
    assert "WC-059" in nodes[-1].text


def test_a_wide_header_is_not_repeated() -> None:
    """It would be most of each chunk."""
    header = "| " + " | ".join(f"Column {number}" for number in range(100)) + " |\n" + "| --- " * 100 + "|\n"
    row = "| " + " | ".join(["7"] * 100) + " |\n"
    nodes = split(markdown(header + row * 50), size=1000)
    assert max(len(node.text) for node in nodes) <= 1000


def test_long_texts_are_cut_in_blocks_and_nothing_is_lost() -> None:
    """In blocks, because the time would grow with the square of the length; also without any blank."""
    for text in ("word " * 60_000, "x" * 300_000, "A sentence with words.\n" * 12_000):
        nodes = split(Page(None, text, is_markdown=False), overlap=0)
        assert sum(len(node.text.replace(" ", "").replace("\n", "")) for node in nodes) == len(
            text.replace(" ", "").replace("\n", "")
        )
        for node in nodes:
            assert text[node.start_char_idx : node.end_char_idx] == node.text


def test_a_large_table_keeps_its_header_everywhere() -> None:
    header = "| Code | Meaning |\n| --- | --- |\n"
    rows = "".join(f"| WC-{number:05} | Meaning {number} |\n" for number in range(20_000))
    nodes = split(markdown(header + rows))
    assert all(node.text.startswith(header) for node in nodes)


def test_ids_are_stable_and_distinct() -> None:
    """The same text in the same document has the same id in every build, also when it stands there twice."""
    page = markdown("# A\n\nSame.\n\n# B\n\nSame.\n\n# A\n\nSame.\n")
    ids = [node.node_id for node in split(page)]
    assert len(set(ids)) == 3
    assert ids == [node.node_id for node in split(page)]
    moved = markdown("# New first\n\nText.\n\n" + page.text)
    assert ids == [node.node_id for node in split(moved)][1:]


def test_it_is_a_llamaindex_transformation() -> None:
    """So that whoever extends the index by LlamaIndex's own means gets the same chunks."""
    chunker = Chunker(chunking=Chunking(1000, 0, ChunkUnit.CHARACTERS))
    nodes = chunker([LlamaDocument(text=HANDBOOK, id_="folder/name.md")])
    assert [node.get_content() for node in nodes] == [node.text for node in split(markdown(HANDBOOK))]
