"""Pages of text with headings, the result of reading a file, and the error for a file without text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.document import DocumentStatus

# A longer line is a paragraph that was marked as a heading.
MAX_HEADING_CHARS = 200

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ATX_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*$")
# A line of a paragraph: neither indented code nor the beginning of a list, a quotation, a table or a rule.
_PARAGRAPH = re.compile(r"^ {0,3}(?![-+*>|=~`#]|\d+[.)])\S")
_SETEXT_UNDERLINE = re.compile(r"^ {0,3}(?:=+|-+)[ \t]*$")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
# Marks of emphasis and code (but not an underscore inside a word), escapes, and links, which keep their text.
_MARKUP = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)|\\(?=[^\w\s])|!?\[([^\]]*)\]\([^)]*\)")


class UnreadableError(Exception):
    """A file cannot be indexed; picklable, since the error crosses a process boundary."""

    def __init__(self, status: DocumentStatus, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True)
class Heading:
    """A heading, from `start` to `end` in the text of its page."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True)
class Page:
    """The text of a page or slide, or of a whole document without pages, which has no number."""

    number: int | None
    text: str
    headings: tuple[Heading, ...] = ()
    is_markdown: bool = True


def markdown_headings(text: str) -> Iterator[Heading]:
    """Find the headings outside code fences and front matter; an underlined heading has a single line."""
    front_matter = _FRONT_MATTER.match(text)
    offset = front_matter.end() if front_matter else 0
    fence: str | None = None
    # The previous line, if it is the first of a paragraph.
    above = ""
    is_blank_above = True
    for line in text[offset:].splitlines(keepends=True):
        bare = line.rstrip()
        is_paragraph = False
        if marker := _FENCE.match(line):
            if fence is None:
                fence = marker[1]
            elif marker[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
        elif fence is None and len(line) <= MAX_HEADING_CHARS:
            if found := _ATX_HEADING.match(bare):
                yield from _heading(offset, offset + len(line), len(found[1]), found[2])
            elif above and _SETEXT_UNDERLINE.match(bare):
                yield from _heading(offset - len(above), offset + len(line), 1 if "=" in bare else 2, above)
            else:
                is_paragraph = _PARAGRAPH.match(bare) is not None
        above = line if is_paragraph and is_blank_above else ""
        is_blank_above = not bare
        offset += len(line)


def _heading(start: int, end: int, level: int, text: str) -> Iterator[Heading]:
    if title := _MARKUP.sub(r"\1", text).strip():
        yield Heading(start, end, level, title)


def clean(text: str) -> str:
    """Normalise line ends to \\n, and drop NULs and anything that UTF-8 cannot encode."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.encode("utf-8", "ignore").decode("utf-8")
