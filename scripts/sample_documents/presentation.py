"""PPTX builder."""

from __future__ import annotations

import io
from itertools import chain

from pptx import Presentation
from pptx.presentation import Presentation as Deck
from pptx.slide import Slide
from pptx.util import Emu, Inches, Length, Pt

from .packaging import repack
from .source import COMPANY, Block, Source

_WIDTH = Inches(13.333)
_MARGIN = Inches(0.8)
_CONTENT_WIDTH = Emu(_WIDTH - 2 * _MARGIN)
_TITLE_SLIDE, _TEXT_SLIDE, _TITLE_ONLY = 0, 1, 5


def build(source: Source) -> bytes:
    """Make one slide per source page; the default template is 4:3, so shapes are placed by hand."""
    deck = Presentation()
    deck.slide_width, deck.slide_height = _WIDTH, Inches(7.5)
    properties = deck.core_properties
    properties.title = source.title
    properties.subject = source.subject
    properties.author = properties.last_modified_by = COMPANY
    properties.comments = ""
    for number, page in enumerate(source.pages):
        _add_slide(deck, page, first=number == 0)
    buffer = io.BytesIO()
    deck.save(buffer)
    return repack(buffer.getvalue(), source.date)


def _add_slide(deck: Deck, page: tuple[Block, ...], *, first: bool) -> None:
    title, *rest = page
    lines = [block for block in rest if block.kind in ("paragraph", "bullet")]
    tables = [block for block in rest if block.kind == "table"]
    layout = _TITLE_SLIDE if first else _TEXT_SLIDE if lines else _TITLE_ONLY
    slide = deck.slides.add_slide(deck.slide_layouts[layout])
    _place_title(slide, title.text, top=Inches(2.2) if first else Inches(0.4))
    if lines:
        _place_lines(slide, lines, top=Inches(3.6) if first else Inches(1.7))
    for table in tables:
        _place_table(slide, table, top=Inches(4.0) if lines else Inches(1.7))
    notes = " ".join(block.text for block in rest if block.kind == "note")
    if notes:
        frame = slide.notes_slide.notes_text_frame
        if frame is None:
            raise ValueError("the template has no room for speaker notes")
        frame.text = notes


def _place_title(slide: Slide, text: str, top: Length) -> None:
    shape = slide.placeholders[0]
    shape.left, shape.top, shape.width, shape.height = _MARGIN, top, _CONTENT_WIDTH, Inches(1.1)
    shape.text_frame.text = text
    font = shape.text_frame.paragraphs[0].font
    font.size, font.bold = Pt(36), True


def _place_lines(slide: Slide, lines: list[Block], top: Length) -> None:
    shape = slide.placeholders[1]
    shape.left, shape.top, shape.width, shape.height = _MARGIN, top, _CONTENT_WIDTH, Inches(2.2)
    frame = shape.text_frame
    for number, line in enumerate(lines):
        paragraph = frame.add_paragraph() if number else frame.paragraphs[0]
        paragraph.text = line.text
        paragraph.font.size = Pt(20)


def _place_table(slide: Slide, table: Block, top: Length) -> None:
    height = Inches(0.42 * len(table.rows))
    frame = slide.shapes.add_table(len(table.rows), len(table.rows[0]), _MARGIN, top, _CONTENT_WIDTH, height)
    cells = chain.from_iterable(row.cells for row in frame.table.rows)
    for cell, text in zip(cells, chain.from_iterable(table.rows), strict=True):
        cell.text = text
        cell.text_frame.paragraphs[0].font.size = Pt(15)
