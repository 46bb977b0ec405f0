"""The pages of a PDF, from kreuzberg's result."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.documents.pages import MAX_HEADING_CHARS, Heading, Page, clean

if TYPE_CHECKING:
    from kreuzberg import ExtractionResult

_MIN_RUNNING_PAGES = 3
_FULL_LINE = 0.85
_SENTENCE_ENDS = ".!?:;。！？"


def pdf_pages(result: ExtractionResult) -> list[Page]:
    """Return the pages' plain text, with headings found by layout.

    kreuzberg's Markdown of a PDF drops lines and has no page numbers. Its pages have all lines and their
    numbers, and its document structure knows which lines are set as headings.
    """
    contents = {page["page_number"]: clean(page["content"]) for page in result.pages or []}
    candidates: dict[int, list[tuple[int, str]]] = {number: [] for number in contents}
    for node in result.document["nodes"] if result.document else []:
        number = node.get("page")
        if node["content"]["node_type"] in {"heading", "title"} and number in candidates:
            candidates[number].append((node["content"].get("level", 1), node["content"]["text"]))
    texts = {number: _unwrapped(text) for number, text in sorted(_without_running_lines(contents).items())}
    return [
        Page(number, text, tuple(_locate(text, candidates[number])), is_markdown=False)
        for number, text in texts.items()
    ]


def _unwrapped(text: str) -> str:
    """Join the lines of a paragraph, which a PDF breaks at the margin, so that sentences can be split.

    A line continues if the next one begins in lower case, or if it is full and does not end a sentence.
    """
    lines = [line.strip() for line in text.split("\n")]
    full = _FULL_LINE * max((len(line) for line in lines), default=0)
    joined: list[str] = []
    previous = ""
    for line in lines:
        is_open = bool(previous) and previous[-1] not in _SENTENCE_ENDS
        if line and is_open and (line[0].islower() or len(previous) >= full):
            joined[-1] += f" {line}"
        else:
            joined.append(line)
        previous = line
    return "\n".join(joined)


def _without_running_lines(contents: dict[int, str]) -> dict[int, str]:
    """Drop page headers and footers: first and last lines that most pages share, page numbers aside."""
    edges = {number: _edge_lines(number, text) for number, text in contents.items()}
    seen = Counter(line for lines in edges.values() for line in set(lines.values()))
    running = {line for line, pages in seen.items() if pages >= max(_MIN_RUNNING_PAGES, len(contents) / 2)}
    return {
        number: "\n".join(
            line for place, line in enumerate(text.split("\n")) if edges[number].get(place) not in running
        )
        for number, text in contents.items()
    }


def _edge_lines(number: int, text: str) -> dict[int, str]:
    """Return the first two and last two lines with text by line number, with the page's number as #."""
    filled = [(place, line) for place, line in enumerate(text.split("\n")) if line.strip()]
    own_number = re.compile(rf"(?<!\d){number}(?!\d)")
    return {place: own_number.sub("#", _one_line(line)) for place, line in filled[:2] + filled[-2:]}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _locate(text: str, candidates: list[tuple[int, str]]) -> Iterator[Heading]:
    """Find the candidates that are whole lines of the page, in order; others are not headings."""
    position = 0
    for level, raw in candidates:
        title = _one_line(raw)
        if not title or len(title) > MAX_HEADING_CHARS:
            continue
        pattern = r"^[ \t]*" + r"\s+".join(map(re.escape, title.split())) + r"[ \t]*$"
        found = re.compile(pattern, re.MULTILINE).search(text, position)
        if found is None or not any(char.isalpha() for char in title):
            continue
        # A line that continues in lower case is part of a sentence that happens to be set large.
        if text[found.end() :].lstrip()[:1].islower():
            continue
        position = found.end()
        yield Heading(found.start(), found.end(), level, title)
