"""Sentences that can be quoted from a passage: prose, items of lists, rows of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from sentencex import segment

_MAX_CHARS = 600

_TABLE_RULE = re.compile(r"^\|[ :|-]+$")
_LIST_MARK = re.compile(r"^(?:[-*+•]|\d+[.)])\s+")
_ESCAPE = re.compile(r"\\(?=[^\w\s])")
# The mark of a footnote, or an index, would be taken for a marker of the answer.
_BRACKETED_NUMBER = re.compile(r"\[(\d{1,9})\]")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def split_sentences(text: str, *, markdown: bool, limit: int) -> list[str]:
    """Return the first `limit` sentences as they stand, except for the signs of Markdown.

    Each has at most 600 characters.
    """
    parts = islice((part for part in _parts(text) if _LETTER_OR_DIGIT.search(part)), limit)
    return [_as_quoted(part, markdown=markdown)[:_MAX_CHARS] for part in parts]


def _parts(text: str) -> Iterator[str]:
    paragraph: list[str] = []
    lines = text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") or not line.strip():
            yield from _prose(paragraph)
            paragraph = []
        if not line.startswith("|"):
            paragraph.append(line.strip())
        elif not _TABLE_RULE.match(line) and not _TABLE_RULE.match(following):
            yield line.strip().strip("|").strip()
    yield from _prose(paragraph)


def _prose(lines: list[str]) -> Iterator[str]:
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if mark := _LIST_MARK.match(line):
            paragraphs.append([line[mark.end() :]])
        else:
            paragraphs[-1].append(line)
    for paragraph in paragraphs:
        if joined := " ".join(part for part in paragraph if part):
            yield from (sentence.strip() for sentence in segment("en", joined))


def _as_quoted(text: str, *, markdown: bool) -> str:
    if markdown:
        text = _ESCAPE.sub("", text)
    return _BRACKETED_NUMBER.sub(r"(\1)", text)
