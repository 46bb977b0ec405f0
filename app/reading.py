"""One file into pages of text with headings. Runs in a process of its own, which may be killed.

kreuzberg does the reading. What is added here is what its output leaves open: page numbers for PDFs and
slides, headings with offsets, a status for what cannot be read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.schemas import DocumentStatus

if TYPE_CHECKING:
    from kreuzberg import ExtractionConfig, ExtractionResult

TEXT_SUFFIXES = frozenset({".txt", ".text", ".log", ".rst"})
READABLE_SUFFIXES = TEXT_SUFFIXES | {
    *(".pdf", ".docx", ".doc", ".pptx", ".ppt", ".xlsx", ".xls", ".odt", ".ods", ".rtf", ".epub"),
    *(".html", ".htm", ".xhtml", ".md", ".markdown", ".csv", ".tsv", ".eml", ".msg", ".json", ".xml"),
}

# Put between slides by kreuzberg; letters and digits only, since anything else comes back escaped.
_PAGE_MARK = "qz7pagebreak{page_num}qz7"
_PAGE_MARK_PATTERN = re.compile(r"^qz7pagebreak(\d+)qz7$", re.MULTILINE)

# kreuzberg renders an HTML page's <meta> as YAML front matter and reads that as Markdown again.
_HTML_FRONT_MATTER = re.compile(r"\A---\n(?:[\w.:-]+: .*\n)*\n## [\w.:-]+: .*\n*")

_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_ATX_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_MARKUP = re.compile(r"[*_`]+|\\(?=[^\w\s])|!?\[([^\]]*)\]\([^)]*\)")

_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
_MAX_HEADING_CHARS = 120
_MIN_RUNNING_PAGES = 3


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


class UnreadableError(Exception):
    """A file has nothing to index; picklable, since it crosses a process boundary."""

    def __init__(self, status: DocumentStatus, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


def start_worker() -> None:
    """Prepare a reader process: quiet, and deaf to the Ctrl-C that its parent handles."""
    import signal  # noqa: PLC0415 - only a worker needs them

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parsers' native libraries print to the terminal, past Python.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def read_pages(path: Path) -> list[Page]:
    """Read a file.

    Raises:
        UnreadableError: nothing of it can be indexed; says why, for a person.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE_SUFFIXES:
        kind = f"{suffix} files are" if suffix else "files without an ending are"
        raise UnreadableError(DocumentStatus.UNSUPPORTED, f"{kind} not read")
    if path.stat().st_size == 0:
        raise UnreadableError(DocumentStatus.EMPTY, "the file has 0 bytes")
    result = _extract(path)
    if suffix == ".pdf":
        pages = _pdf_pages(result)
    elif suffix in TEXT_SUFFIXES:
        pages = [Page(None, _clean(result.content), is_markdown=False)]
    else:
        pages = _markdown_pages(result, is_html=suffix in {".html", ".htm", ".xhtml"})
    if not any(page.text.strip() for page in pages):
        if suffix == ".pdf":
            raise UnreadableError(
                DocumentStatus.NEEDS_OCR, "its pages hold no text, only images: run OCR on it first"
            )
        raise UnreadableError(DocumentStatus.EMPTY, "there is no text in it")
    return pages


def _extract(path: Path) -> ExtractionResult:
    from kreuzberg import KreuzbergError, extract_file_sync  # noqa: PLC0415 - only a worker needs them

    try:
        result = extract_file_sync(path, config=_config(path.suffix.lower()))
    except KreuzbergError as error:
        raise _explain(error, path) from None
    if "\0" in result.content:
        raise UnreadableError(DocumentStatus.UNREADABLE, "it holds binary data, not text")
    return result


def _config(suffix: str) -> ExtractionConfig:
    from kreuzberg import ExtractionConfig, PageConfig  # noqa: PLC0415

    return ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg] # its stub lacks it
        output_format="plain" if suffix in TEXT_SUFFIXES else "markdown",
        pages=PageConfig(
            extract_pages=True, insert_page_markers=suffix == ".pptx", marker_format=f"\n\n{_PAGE_MARK}\n\n"
        ),
        include_document_structure=suffix == ".pdf",
        html_options={"preprocessing": {"enabled": True, "preset": "standard", "remove_navigation": True}},
    )


def _explain(error: Exception, path: Path) -> UnreadableError:
    """A status and a sentence for a parser's error."""
    message = " ".join(str(error).split())
    head = path.read_bytes()[: 1 << 20]
    if "password" in message.lower() or "encrypted" in message.lower():
        return UnreadableError(DocumentStatus.ENCRYPTED, "it is protected by a password")
    if head.startswith(_OLE_MAGIC) and _OLE_ENCRYPTED_STREAM in head:
        return UnreadableError(DocumentStatus.ENCRYPTED, "it is protected by a password")
    kind = path.suffix.lower().lstrip(".").upper()
    return UnreadableError(DocumentStatus.UNREADABLE, f"not a valid {kind} file: {message[:200]}")


def _clean(text: str) -> str:
    """Line ends as \\n, nothing that UTF-8 cannot hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-8", "ignore").decode("utf-8")


def _markdown_pages(result: ExtractionResult, *, is_html: bool) -> list[Page]:
    text = _clean(result.content)
    if is_html:
        text = _HTML_FRONT_MATTER.sub("", text)
    marks = list(_PAGE_MARK_PATTERN.finditer(text))
    if not marks:
        return [Page(None, text, tuple(markdown_headings(text)))]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    slides = [(int(mark[1]), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    return [Page(number, slide, tuple(markdown_headings(slide))) for number, slide in slides]


def markdown_headings(text: str) -> Iterator[Heading]:
    """The ATX headings outside code fences (kreuzberg writes no other kind)."""
    fence: str | None = None
    offset = 0
    for line in text.splitlines(keepends=True):
        if marker := _FENCE.match(line):
            fence = None if fence == marker[1] else fence or marker[1]
        elif fence is None and (heading := _ATX_HEADING.match(line.rstrip("\n"))):
            title = _MARKUP.sub(r"\1", heading[2]).strip()
            if title:
                yield Heading(offset, offset + len(line), len(heading[1]), title)
        offset += len(line)


def _pdf_pages(result: ExtractionResult) -> list[Page]:
    """The pages' plain text, with headings found by layout.

    kreuzberg's Markdown of a PDF drops lines and has no page numbers; its pages have both, and its document
    structure knows which lines are set as headings.
    """
    contents = _without_running_lines(
        {page["page_number"]: _clean(page["content"]) for page in result.pages or []}
    )
    candidates: dict[int, list[tuple[int, str]]] = {number: [] for number in contents}
    for node in result.document["nodes"] if result.document else []:
        number = node.get("page")
        if node["content"]["node_type"] in {"heading", "title"} and number in candidates:
            candidates[number].append((node["content"].get("level", 1), node["content"]["text"]))
    return [
        Page(number, text, tuple(_locate(text, candidates[number])), is_markdown=False)
        for number, text in sorted(contents.items())
    ]


def _without_running_lines(contents: dict[int, str]) -> dict[int, str]:
    """Drop page headers and footers: first or last lines that are the same, but for numbers, mostly."""
    edges = {number: _edge_lines(text) for number, text in contents.items()}
    seen = Counter(line for lines in edges.values() for line in set(lines.values()))
    running = {line for line, pages in seen.items() if pages >= max(_MIN_RUNNING_PAGES, len(contents) / 2)}
    return {
        number: "\n".join(
            line for place, line in enumerate(text.split("\n")) if edges[number].get(place) not in running
        )
        for number, text in contents.items()
    }


def _edge_lines(text: str) -> dict[int, str]:
    """The first two and the last two lines with text, by their place, without numbers."""
    filled = [(place, line) for place, line in enumerate(text.split("\n")) if line.strip()]
    return {place: re.sub(r"\d+", "#", _one_line(line)) for place, line in filled[:2] + filled[-2:]}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _locate(text: str, candidates: list[tuple[int, str]]) -> Iterator[Heading]:
    """Find candidates as whole lines of the page, in order; what is not one is not a heading."""
    position = 0
    for level, raw in candidates:
        title = _one_line(raw)
        if not title or len(title) > _MAX_HEADING_CHARS:
            continue
        pattern = r"^[ \t]*" + r"\s+".join(map(re.escape, title.split())) + r"[ \t]*$"
        found = re.compile(pattern, re.MULTILINE).search(text, position)
        if found is None or not any(char.isalpha() for char in title):
            continue
        # A line that goes on in lower case is a sentence that happens to be set large.
        if text[found.end() :].lstrip()[:1].islower():
            continue
        position = found.end()
        yield Heading(found.start(), found.end(), level, title)
