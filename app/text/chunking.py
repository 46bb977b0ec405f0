"""Pages into chunks with document, page, heading path and offsets.

Without LlamaIndex, which takes a second to import: the processes that read documents cut them, too.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from app.documents.pages import Heading, Page
from app.domain.chunk import Chunk, ChunkUnit, embed_text, text_hash
from app.text.tokenizer import load_tokenizer

HEADING_SEPARATOR = " > "

_TABLE_RULE = re.compile(r"^\|[ :|-]+\|$")
_MIN_BLOCK_CHARS = 20_000


class _Splitter(Protocol):
    def chunk_indices(self, text: str, /) -> list[tuple[int, str]]: ...


@dataclass(frozen=True)
class Chunking:
    """Rules by which documents are cut, as an index's manifest names them.

    Attributes:
        size, overlap: of chunks, in `unit`.
    """

    size: int
    overlap: int
    unit: ChunkUnit

    @property
    def block(self) -> int:
        """The most characters that are cut in one go: many chunks, whatever their unit."""
        return max(_MIN_BLOCK_CHARS, 20 * self.size)

    @cached_property
    def markdown(self) -> _Splitter:
        if self.unit is ChunkUnit.TOKENS:
            return MarkdownSplitter.from_huggingface_tokenizer(load_tokenizer(), self.size, self.overlap)
        return MarkdownSplitter(self.size, self.overlap)

    @cached_property
    def plain(self) -> _Splitter:
        if self.unit is ChunkUnit.TOKENS:
            return TextSplitter.from_huggingface_tokenizer(load_tokenizer(), self.size, self.overlap)
        return TextSplitter(self.size, self.overlap)


@dataclass(frozen=True)
class _Section:
    """Text under one heading, at `start` in its page."""

    start: int
    text: str
    path: tuple[str, ...]


class HeadingPath:
    """The headings above the current place; it goes on from page to page."""

    def __init__(self) -> None:
        self._open: list[Heading] = []

    def enter(self, heading: Heading) -> None:
        self._open = [above for above in self._open if above.level < heading.level] + [heading]

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(heading.title for heading in self._open)


def cut(document: str, pages: Iterable[Page], chunking: Chunking) -> Iterator[Chunk]:
    """Cut pages at headings, then to size: a chunk has one heading path and one page, for exact citations."""
    path = HeadingPath()
    seen: Counter[str] = Counter()
    for page in pages:
        splitter = chunking.markdown if page.is_markdown else chunking.plain
        for section in _sections(page, path):
            headers = _TableHeaders(section.text, max_chars=chunking.size // 3)
            heading = HEADING_SEPARATOR.join(section.path) or None
            for offset, part in _cut(section.text, splitter, block=chunking.block):
                text = headers.above(offset, part) + part
                start = section.start + offset
                end = start + len(text)
                hashed = text_hash(embed_text(heading, text))
                seen[hashed] += 1
                yield Chunk(document, page.number, heading, text, start, end, hashed, seen[hashed])


def _cut(text: str, splitter: _Splitter, *, block: int) -> Iterator[tuple[int, str]]:
    """Yield the chunks with their offsets.

    Long texts go to the splitter in blocks: its time grows with the square of an unbroken text's length, to
    5 s for a line of 800 KB.
    """
    start = 0
    while start < len(text):
        end = _block_end(text, start, block)
        for offset, chunk in splitter.chunk_indices(text[start:end]):
            yield start + offset, chunk
        start = end


def _block_end(text: str, start: int, block: int) -> int:
    """Return a place to cut a block of a long text: between paragraphs, lines or words if there is one."""
    limit = start + block
    if limit >= len(text):
        return len(text)
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, start + block // 2, limit)
        if found > 0:
            return found + len(separator)
    return limit


class _TableHeaders:
    """The headers of a section's tables, to be repeated above rows that were cut off from them.

    A row alone does not say what its cells mean. A header that would fill a good part of a chunk is not
    repeated.
    """

    def __init__(self, section: str, *, max_chars: int) -> None:
        self._starts: list[int] = []
        self._headers: list[str] = []
        offset = 0
        header, rows = "", 0
        lines = section.splitlines(keepends=True)
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if not line.startswith("|"):
                header, rows = "", 0
            else:
                rows += 1
                if rows == 1 and _TABLE_RULE.match(following.strip()) and len(line + following) <= max_chars:
                    header = line + following
                elif rows > 2 and header:
                    self._starts.append(offset)
                    self._headers.append(header)
            offset += len(line)

    def above(self, start: int, text: str) -> str:
        """Return what belongs above a chunk from `start`: a header, if it begins with a row of a table."""
        place = bisect.bisect_left(self._starts, start)
        if text.startswith("|") and place < len(self._starts) and self._starts[place] == start:
            return self._headers[place]
        return ""


def _sections(page: Page, path: HeadingPath) -> Iterator[_Section]:
    """Yield the text between headings; a heading with nothing below it, not even a deeper one, is text."""
    bounds = [*page.headings, None]
    first = page.headings[0].start if page.headings else len(page.text)
    if page.text[:first].strip():
        yield _Section(0, page.text[:first], path.titles)
    for heading, following in zip(page.headings, bounds[1:], strict=True):
        path.enter(heading)
        body = page.text[heading.end : following.start if following else len(page.text)]
        if body.strip():
            yield _Section(heading.end, body, path.titles)
        elif following is None or following.level <= heading.level:
            yield _Section(heading.start, page.text[heading.start : heading.end], path.titles[:-1])
