"""Markdown documents of this project: their code blocks, links and anchors."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.serving import ROOT

_FENCE = re.compile(r" *```(\w*)$")
_COMMENT = re.compile(r" *<!-- (not run|shows): (.+) -->$")
_HEADING = re.compile(r"#{1,6} (.+)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE_CODE = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        document: the path of its document, from the project's folder.
        line: the number of its first line of code.
        not_run: the reason in the comment `<!-- not run: ... -->` above it; None if it is to be run.
        shows: the texts that its output must have, from comments `<!-- shows: ... -->` above it.
    """

    document: str
    line: int
    language: str
    code: str
    not_run: str | None
    shows: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str) -> list[Block]:
    """Return all fenced code blocks of a document, in order."""
    found: list[Block] = []
    comments: list[tuple[str, str]] = []
    language: str | None = None
    code: list[str] = []
    for number, line in enumerate(_lines(document), start=1):
        fence = _FENCE.match(line)
        if language is not None and not fence:
            code.append(line)
        elif language is not None:
            found.append(_block(document, number - len(code), language, code, comments))
            language, code, comments = None, [], []
        elif fence:
            language = fence[1]
        elif comment := _COMMENT.match(line):
            comments.append((comment[1], comment[2]))
        else:
            comments = []
    assert language is None, f"{document}: a code block has no end"
    return found


def prose(document: str) -> str:
    """Return a document without its fenced code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", _text(document), flags=re.DOTALL | re.MULTILINE)


def links(document: str) -> list[str]:
    """Return the targets of all links outside of code."""
    return _LINK.findall(_INLINE_CODE.sub("`", prose(document)))


def anchors(document: str) -> set[str]:
    """Return the anchors of all headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for line in prose(document).splitlines():
        if heading := _HEADING.match(line):
            name = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def _block(
    document: str, line: int, language: str, code: list[str], comments: list[tuple[str, str]]
) -> Block:
    reasons = [text for kind, text in comments if kind == "not run"]
    shows = tuple(text for kind, text in comments if kind == "shows")
    content = textwrap.dedent("\n".join(code))
    return Block(document, line, language, content, reasons[0] if reasons else None, shows)


def _text(document: str) -> str:
    return Path(ROOT, document).read_text(encoding="utf-8")


def _lines(document: str) -> list[str]:
    return _text(document).splitlines()
