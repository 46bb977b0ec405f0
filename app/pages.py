"""Pages of text with headings: what reading a file gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A longer line is a paragraph that somebody marked as a heading.
MAX_HEADING_CHARS = 200

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ATX_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*$")
# Signs of emphasis and code (not an underscore inside a word), escapes, and links, which leave their text.
_MARKUP = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)|\\(?=[^\w\s])|!?\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True)
class Heading:
    """A heading, at `start` to `end` in its page's text."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True)
class Page:
    """The text of a page or slide, or (with no number) of a whole document that has none."""

    number: int | None
    text: str
    headings: tuple[Heading, ...] = ()
    is_markdown: bool = True


def markdown_headings(text: str) -> Iterator[Heading]:
    """The ATX headings outside code fences (kreuzberg writes no other kind)."""
    fence: str | None = None
    offset = 0
    for line in text.splitlines(keepends=True):
        if marker := _FENCE.match(line):
            if fence is None:
                fence = marker[1]
            elif marker[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
        elif (
            fence is None
            and len(line) <= MAX_HEADING_CHARS
            and (heading := _ATX_HEADING.match(line.rstrip()))
        ):
            title = _MARKUP.sub(r"\1", heading[2]).strip()
            if title:
                yield Heading(offset, offset + len(line), len(heading[1]), title)
        offset += len(line)


def clean(text: str) -> str:
    """Line ends as \\n, no NUL, nothing that UTF-8 cannot hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.encode("utf-8", "ignore").decode("utf-8")
