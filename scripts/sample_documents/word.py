"""DOCX builder."""

from __future__ import annotations

import io
from itertools import chain

from docx import Document
from docx.document import Document as WordDocument
from docx.shared import Pt, RGBColor

from .packaging import repack
from .source import COMPANY, Block, Source


def build(source: Source) -> bytes:
    """Use Word's own heading styles: readers take the section structure from them."""
    document = Document()
    document.styles["Normal"].font.size = Pt(10.5)
    for level in (1, 2, 3):
        document.styles[f"Heading {level}"].font.color.rgb = RGBColor(24, 84, 72)
    properties = document.core_properties
    properties.title = source.title
    properties.subject = source.subject
    properties.author = properties.last_modified_by = COMPANY
    properties.comments = ""
    document.sections[0].footer.paragraphs[0].text = f"{COMPANY} - {source.title}"
    for block in chain.from_iterable(source.pages):
        _write(document, block)
    buffer = io.BytesIO()
    document.save(buffer)
    return repack(buffer.getvalue(), source.date)


def _write(document: WordDocument, block: Block) -> None:
    if block.kind == "heading":
        document.add_heading(block.text, level=block.level)
    elif block.kind == "table":
        _write_table(document, block)
    else:
        document.add_paragraph(block.text, style="List Bullet" if block.kind == "bullet" else None)


def _write_table(document: WordDocument, block: Block) -> None:
    table = document.add_table(rows=len(block.rows), cols=len(block.rows[0]), style="Light Grid Accent 3")
    for cells, row in zip(table.rows, block.rows, strict=True):
        for cell, text in zip(cells.cells, row, strict=True):
            cell.text = text
    document.add_paragraph()
