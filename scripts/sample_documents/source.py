"""The line format in which the content of the office files is written.

A header of ``Key: value`` lines, a blank line, then blocks: ``#``/``##``/``###``
headings, ``-`` bullets, ``|`` tables, ``>`` speaker notes, ``---`` page or slide
breaks, and paragraphs. It is a small subset of Markdown on purpose: every builder
can support all of it, and no Markdown library has to be pinned for reproducibility.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal

COMPANY = "Quillmere Instruments Ltd"

Kind = Literal["heading", "paragraph", "bullet", "table", "note"]


@dataclass(frozen=True)
class Block:
    """One unit of text; ``level`` counts for headings only, ``rows`` for tables only."""

    kind: Kind
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Source:
    """A parsed document. ``date`` replaces the clock wherever a format wants a timestamp."""

    title: str
    subject: str
    date: datetime
    pages: tuple[tuple[Block, ...], ...]


def parse(text: str) -> Source:
    """Read a source; a missing header key is an error because every format needs all three."""
    header_text, _, body = text.partition("\n\n")
    header = dict(line.split(": ", 1) for line in header_text.splitlines())
    missing = {"Title", "Subject", "Date"} - header.keys()
    if missing:
        raise ValueError(f"header lacks {', '.join(sorted(missing))}")
    pages = re.split(r"^---$", body, flags=re.MULTILINE)
    return Source(
        title=header["Title"],
        subject=header["Subject"],
        date=datetime.fromisoformat(header["Date"]).replace(hour=9, tzinfo=UTC),
        pages=tuple(tuple(_blocks(page)) for page in pages),
    )


def _blocks(page: str) -> list[Block]:
    """Group lines of one kind, so that sources can be wrapped at a readable width."""
    blocks: list[Block] = []
    for kind, group in groupby(page.splitlines(), key=_line_kind):
        lines = [line.strip() for line in group]
        if kind == "table":
            blocks.append(Block("table", rows=_rows(lines)))
        elif kind == "heading":
            blocks += [_heading(line) for line in lines]
        elif kind == "bullet":
            blocks += [Block("bullet", item) for item in _bullets(lines)]
        elif kind == "note":
            blocks.append(Block("note", " ".join(line.removeprefix("> ") for line in lines)))
        elif kind == "paragraph":
            blocks.append(Block("paragraph", " ".join(lines)))
    return blocks


def _line_kind(line: str) -> Kind | None:
    if not line.strip():
        return None
    prefixes: dict[str, Kind] = {"#": "heading", "|": "table", ">": "note", "- ": "bullet", "  ": "bullet"}
    return next((kind for prefix, kind in prefixes.items() if line.startswith(prefix)), "paragraph")


def _heading(line: str) -> Block:
    marks, _, text = line.partition(" ")
    return Block("heading", text, level=len(marks))


def _bullets(lines: list[str]) -> list[str]:
    """Join each bullet with its indented continuation lines."""
    joined = "\n".join(lines)
    return [item.replace("\n", " ") for item in re.split(r"(?:^|\n)- ", joined) if item]


def _rows(lines: list[str]) -> tuple[tuple[str, ...], ...]:
    rows = tuple(tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines)
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"ragged table starting with {lines[0]!r}")
    return rows
