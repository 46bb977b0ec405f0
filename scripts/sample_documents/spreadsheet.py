"""XLSX builder."""

from __future__ import annotations

import io
import re

from openpyxl import Workbook
from openpyxl.styles import Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from .packaging import repack
from .source import COMPANY, Block, Source

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")


def build(source: Source) -> bytes:
    """Make one sheet per heading and table, the table at A1.

    Readers take the first row for the column names, so nothing may stand above it.
    """
    workbook = Workbook()
    workbook.remove(workbook.worksheets[0])
    workbook.properties.title = source.title
    workbook.properties.subject = source.subject
    workbook.properties.creator = COMPANY
    for page in source.pages:
        heading, table = page
        _fill(workbook.create_sheet(heading.text), table)
    buffer = io.BytesIO()
    workbook.save(buffer)
    return repack(buffer.getvalue(), source.date)


def _fill(sheet: Worksheet, table: Block) -> None:
    for row in table.rows:
        sheet.append([_value(text) for text in row])
    for cell in sheet[1]:
        cell.font = Font(bold=True)
        cell.fill = PatternFill("solid", fgColor="DEEBE7")
    for number, column in enumerate(zip(*table.rows, strict=True), start=1):
        width = min(max(len(text) for text in column) + 2, 60)
        sheet.column_dimensions[get_column_letter(number)].width = width
    sheet.freeze_panes = "A2"


def _value(text: str) -> str | int | float:
    """Store amounts as numbers, as a real workbook has them; codes with leading zeros stay text."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)
