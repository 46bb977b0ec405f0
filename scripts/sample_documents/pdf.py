"""PDF builder."""

from __future__ import annotations

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace

from .source import COMPANY, Block, Source

_HEADING_SIZES = {1: 20, 2: 14, 3: 11.5}
_BODY_SIZE = 10.5
_LINE = 5.4
_ACCENT = (24, 84, 72)


class _Handbook(FPDF):
    """Adds the footer; fpdf2 takes it from an override, not from an argument."""

    footer_text = ""

    def footer(self) -> None:
        self.set_y(-14)
        self.set_font("Helvetica", size=8)
        self.set_text_color(120)
        self.cell(0, 5, f"{self.footer_text} - page {self.page_no()} of {{nb}}", align="C")


def build(source: Source) -> bytes:
    """Start a page per source page, because questions about a PDF cite page numbers."""
    document = _Handbook(format="A4")
    document.footer_text = f"{COMPANY} - {source.title}"
    document.set_margins(24, 22)
    document.set_auto_page_break(True, margin=22)
    document.set_title(source.title)
    document.set_subject(source.subject)
    document.set_author(COMPANY)
    document.set_producer(COMPANY)
    document.set_creation_date(source.date)
    document.set_lang("en")
    for number, page in enumerate(source.pages, start=1):
        document.add_page()
        for block in page:
            _write(document, block)
        if document.page_no() != number:
            raise ValueError(f"page {number} overflows; shorten it or move text")
    return bytes(document.output())


def _write(document: FPDF, block: Block) -> None:
    if block.kind == "heading":
        _write_heading(document, block)
        return
    document.set_font("Helvetica", size=_BODY_SIZE)
    document.set_text_color(30)
    if block.kind == "table":
        _write_table(document, block)
    elif block.kind == "bullet":
        document.cell(6, _LINE, "\x95", align="R")
        document.set_x(document.l_margin + 8)
        document.multi_cell(0, _LINE, block.text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        document.ln(1)
    else:
        document.multi_cell(0, _LINE, block.text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        document.ln(2.4)


def _write_heading(document: FPDF, block: Block) -> None:
    """Bold and larger type is all that marks a heading in an untagged PDF; the outline helps people."""
    size = _HEADING_SIZES[block.level]
    document.ln(2.5)
    document.start_section(block.text, level=block.level - 1)
    document.set_font("Helvetica", style="B", size=size)
    document.set_text_color(*_ACCENT)
    document.multi_cell(0, size * 0.48, block.text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    document.ln(1.8)


def _write_table(document: FPDF, block: Block) -> None:
    """Mark the head by colour alone: text extractors take a bold line for a section heading."""
    document.set_font_size(9.5)
    widths = tuple(max(len(text) for text in column) + 4 for column in zip(*block.rows, strict=True))
    with document.table(
        block.rows,
        col_widths=widths,
        headings_style=FontFace(fill_color=(205, 226, 220)),
        line_height=5.4,
        padding=0.6,
        text_align="LEFT",
    ):
        pass
    document.ln(3)
