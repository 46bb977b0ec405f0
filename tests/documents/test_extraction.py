"""Reading files as pages: formats, headings, page numbers, and files that cannot be read."""

from __future__ import annotations

import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF

from app.documents.extraction import READER_VERSION, read_pages
from app.documents.pages import UnreadableError, markdown_headings
from app.domain.document import DocumentStatus
from tests.conftest import SAMPLE_DOCUMENTS


def make_pdf(path: Path, pages: list[str], **protection: Any) -> Path:
    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    for text in pages:
        pdf.add_page()
        if text:
            pdf.multi_cell(0, text=text)
    if protection:
        pdf.set_encryption(**protection)
    pdf.output(str(path))
    return path


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as error:
        read_pages(path)
    return error.value


@pytest.mark.parametrize(
    ("name", "text", "heading"),
    [
        ("policies/remote-work.docx", "450", True),
        ("products/spare-parts.xlsx", "|", True),
        ("products/product-overview.pptx", "EUR 89", True),
        ("products/wren-sensors.html", "26 months", True),
        ("products/rookery-api.md", "api.rookery.example", True),
        ("support/error-codes.csv", "WC-05", False),
        ("operations/calibration-laboratory.txt", "QI-L-07", False),
        ("operations/warehouse-and-shipping.rtf", "Larkpost", True),
        ("policies/code-of-conduct.odt", "Quillmere", True),
        ("policies/onboarding-guide.epub", "Quillmere", True),
        ("support/firmware-notice-siskin.eml", "4.7.1", False),
    ],
)
def test_each_format_has_text_and_headings(name: str, text: str, heading: bool) -> None:
    """The text of each format is read, with headings if the format has them."""
    pages = read_pages(SAMPLE_DOCUMENTS / name)
    assert text in "\n".join(page.text for page in pages)
    assert any(page.headings for page in pages) is heading


def test_a_pdf_has_pages_with_numbers_and_headings() -> None:
    """Page numbers and headings come from the PDF's layout."""
    pages = read_pages(SAMPLE_DOCUMENTS / "policies" / "leave.pdf")
    assert [page.number for page in pages] == [1, 2, 3, 4]
    assert "Parental leave" in [heading.title for heading in pages[2].headings]
    assert "16 weeks" in pages[2].text


def test_page_headers_and_footers_of_a_pdf_are_dropped() -> None:
    """They would otherwise be part of every chunk."""
    pages = read_pages(SAMPLE_DOCUMENTS / "policies" / "leave.pdf")
    assert not any("page 3 of 4" in page.text for page in pages)


def test_paragraphs_of_a_pdf_are_joined() -> None:
    """Lines end at the margin rather than at the end of a sentence."""
    pages = read_pages(SAMPLE_DOCUMENTS / "policies" / "leave.pdf")
    sentence = "It is open to birth parents and their partners alike, regardless of gender or marital status"
    assert sentence in pages[2].text
    assert "\nAdoption leave\n" in pages[2].text


def test_slides_are_pages() -> None:
    """A presentation has one page per slide."""
    pages = read_pages(SAMPLE_DOCUMENTS / "products" / "product-overview.pptx")
    assert [page.number for page in pages] == list(range(1, 8))
    assert "EUR 89" in pages[5].text


def test_offsets_of_headings_find_them_in_the_text() -> None:
    """A heading's offsets delimit its line."""
    for name in ("policies/leave.pdf", "products/rookery-api.md", "policies/remote-work.docx"):
        for page in read_pages(SAMPLE_DOCUMENTS / name):
            for heading in page.headings:
                found = page.text[heading.start : heading.end]
                assert heading.title.split()[-1] in found, (name, heading)


def test_code_blocks_have_no_headings() -> None:
    """A comment in code is not a heading."""
    fenced = "```sh\n# a comment\n```\n\n~~~\n# no\n```\n# no\n~~~\n"
    longer = "````md\n```\n# no\n```\n````\n"
    text = f"# One\n\n{fenced}{longer}\n## Two `code` and *more* #\n\n#hashtag\n\n### [Three](x)\n"
    assert [(heading.level, heading.title) for heading in markdown_headings(text)] == [
        (1, "One"),
        (2, "Two code and more"),
        (3, "Three"),
    ]


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("# snake_case_name", "snake_case_name"),
        ("# C\\# and F\\#", "C# and F#"),
        ("# _One_ __two__ #", "One two"),
    ],
)
def test_headings_keep_what_is_not_markup(line: str, title: str) -> None:
    """Titles lose only the marks of emphasis, code, escapes and links."""
    assert [heading.title for heading in markdown_headings(f"{line}\n")] == [title]


def test_a_paragraph_marked_as_a_heading_is_text() -> None:
    """It would otherwise be repeated above each of its chunks."""
    assert list(markdown_headings("# " + "word " * 1000)) == []


def test_a_rule_and_a_heading_are_not_front_matter(tmp_path: Path) -> None:
    """The text after them is kept."""
    (tmp_path / "page.html").write_text("<hr><h2>Warning: never open the lid</h2><p>Keep closed.</p>")
    (read,) = read_pages(tmp_path / "page.html")
    assert "Warning: never open the lid" in read.text


def test_the_front_matter_of_html_is_dropped(tmp_path: Path) -> None:
    """kreuzberg renders a page's metadata as text."""
    page = tmp_path / "page.html"
    page.write_text(
        "<html><head><title>A title</title><meta name='description' content='About it'></head>"
        "<body><nav><a href='/'>Home</a></nav><h1>Heading</h1><p>Body.</p></body></html>"
    )
    (read,) = read_pages(page)
    assert read.text.strip() == "# Heading\n\nBody."


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "iso-8859-1", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_other_encodings_than_utf8_are_recognised(tmp_path: Path, name: str, encoding: str) -> None:
    """Old exports and Notepad's "Unicode" are read."""
    text = "Die österreichische Urlaubsregelung für Beschäftigte gilt ab März.\n" * 20
    (tmp_path / name).write_bytes(text.encode(encoding))
    (page,) = read_pages(tmp_path / name)
    assert "österreichische Urlaubsregelung für Beschäftigte" in page.text
    assert "\ufffd" not in page.text


def test_encodings_of_other_alphabets_are_recognised(tmp_path: Path) -> None:
    """Cyrillic and Chinese texts are read."""
    texts = {"cp1251": "Отпуск длится шестнадцать недель. ", "gb18030": "产假为十六周，须提前四周申请。"}
    for encoding, text in texts.items():
        (tmp_path / "a.txt").write_bytes((text * 5).encode(encoding))
        assert text.strip() in read_pages(tmp_path / "a.txt")[0].text


def test_tables_and_numbered_headings_of_a_pdf_are_kept(tmp_path: Path) -> None:
    """Lines that differ in more than the page number are not headers or footers."""
    pages = [
        f"Handbook - page {number}\nArticle {number * 7}\n2006 {number}235 99\n1999 81 17\nTotal: {number}00"
        for number in range(1, 6)
    ]
    read = read_pages(make_pdf(tmp_path / "table.pdf", pages))
    for number, page in enumerate(read, start=1):
        for kept in (f"Article {number * 7}", f"2006 {number}235 99", f"Total: {number}00"):
            assert kept in page.text
        assert "Handbook" not in page.text


def test_an_empty_file_has_the_status_empty(tmp_path: Path) -> None:
    """The problem says that it has 0 bytes."""
    for name in ("zero.pdf", "zero.txt", "zero.docx"):
        (tmp_path / name).touch()
        assert refusal(tmp_path / name).status is DocumentStatus.EMPTY
        assert "0 bytes" in refusal(tmp_path / name).problem


def test_a_file_without_text_has_the_status_empty(tmp_path: Path) -> None:
    """Blanks alone are not text."""
    (tmp_path / "blank.txt").write_text(" \n\t\n")
    assert refusal(tmp_path / "blank.txt").status is DocumentStatus.EMPTY


def test_a_file_with_the_wrong_extension_is_unreadable(tmp_path: Path) -> None:
    """The problem names the kind that it is not."""
    for name in ("text.pdf", "text.docx", "text.xlsx", "text.pptx", "text.epub", "text.odt"):
        (tmp_path / name).write_text("just text")
        assert refusal(tmp_path / name).status is DocumentStatus.UNREADABLE
        assert Path(name).suffix[1:].upper() in refusal(tmp_path / name).problem


def test_binary_data_with_a_text_extension_is_unreadable(tmp_path: Path) -> None:
    """It is not indexed as text."""
    (tmp_path / "photo.txt").write_bytes(bytes(range(256)) * 20)
    assert refusal(tmp_path / "photo.txt").status is DocumentStatus.UNREADABLE


def test_other_formats_are_unsupported(tmp_path: Path) -> None:
    """Files with other extensions, or none, are not read."""
    for name in ("photo.png", "archive.zip", "program", "sheet.numbers"):
        (tmp_path / name).write_bytes(b"something")
        assert refusal(tmp_path / name).status is DocumentStatus.UNSUPPORTED


def test_a_protected_file_is_distinguished_from_a_damaged_one(tmp_path: Path) -> None:
    """A password gives the status `encrypted`."""
    secret = make_pdf(tmp_path / "secret.pdf", ["hidden"], owner_password="owner", user_password="user")
    assert refusal(secret).status is DocumentStatus.ENCRYPTED


def test_the_reader_version_names_the_parser() -> None:
    """Another version may read other text from the same file."""
    assert READER_VERSION.startswith(f"kreuzberg {version('kreuzberg')}; rules ")


def test_a_scanned_pdf_needs_ocr(tmp_path: Path) -> None:
    """The status says what to do."""
    assert refusal(make_pdf(tmp_path / "scan.pdf", ["", ""])).status is DocumentStatus.NEEDS_OCR


def test_a_truncated_pdf_is_read_or_rejected(tmp_path: Path) -> None:
    """It neither crashes the process nor becomes an empty document."""
    whole = make_pdf(tmp_path / "whole.pdf", ["some text"] * 3).read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.pdf").write_bytes(whole[:size])
        try:
            assert any(page.text.strip() for page in read_pages(tmp_path / "cut.pdf"))
        except UnreadableError as error:
            assert error.problem


def test_a_text_of_twenty_megabytes_is_read(tmp_path: Path) -> None:
    """The size of a text file is not a problem."""
    words = [f"word{number}" for number in range(1000)]
    chooser = random.Random(1)
    line = " ".join(chooser.choices(words, k=15)) + ".\n"
    (tmp_path / "large.txt").write_text(line * (20_000_000 // len(line)))
    (page,) = read_pages(tmp_path / "large.txt")
    assert len(page.text) > 19_000_000
