"""One file into pages of text with headings. Runs in a process of its own, which may be killed.

kreuzberg does the reading. What is added here is what its output leaves open: page numbers for PDFs and
slides, headings with offsets, a status for what cannot be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.encodings import read_unless_utf8
from app.pages import Page, clean, markdown_headings
from app.pdf import pdf_pages
from app.schemas import DocumentStatus

if TYPE_CHECKING:
    from kreuzberg import ExtractionConfig, ExtractionResult

TEXT_SUFFIXES = frozenset({".txt", ".text", ".log", ".rst"})
READABLE_SUFFIXES = TEXT_SUFFIXES | {
    *(".pdf", ".docx", ".doc", ".pptx", ".ppt", ".xlsx", ".xls", ".odt", ".ods", ".rtf", ".epub"),
    *(".html", ".htm", ".xhtml", ".md", ".markdown", ".csv", ".tsv", ".eml", ".msg", ".json", ".xml"),
}

# Formats without a declaration of their encoding, or with one that kreuzberg does not heed.
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
_MIME_TYPES = {
    **dict.fromkeys(TEXT_SUFFIXES, "text/plain"),
    **dict.fromkeys({".md", ".markdown"}, "text/markdown"),
    **dict.fromkeys(_HTML_SUFFIXES, "text/html"),
}
# Put between slides by kreuzberg; letters and digits only, since anything else comes back escaped.
_PAGE_MARK = "qz7pagebreak{page_num}qz7"
_PAGE_MARK_PATTERN = re.compile(r"^qz7pagebreak(\d+)qz7$", re.MULTILINE)

# kreuzberg renders an HTML page's <meta> as YAML front matter and reads that as Markdown again.
_HTML_FRONT_MATTER = re.compile(r"\A---\n(?:meta-[\w.:-]+: .*\n)*\n## (?:title|meta-[\w.:-]+): .*\n*")

_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
_MAX_NULS = 0.001
_NOT_TEXT = "it holds binary data, not text"


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
        pages = pdf_pages(result)
    elif suffix in TEXT_SUFFIXES:
        pages = [Page(None, clean(result.content), is_markdown=False)]
    else:
        pages = _markdown_pages(result, is_html=suffix in _HTML_SUFFIXES)
    if not any(page.text.strip() for page in pages):
        if suffix == ".pdf":
            raise UnreadableError(
                DocumentStatus.NEEDS_OCR, "its pages hold no text, only images: run OCR on it first"
            )
        raise UnreadableError(DocumentStatus.EMPTY, "there is no text in it")
    return pages


def _extract(path: Path) -> ExtractionResult:
    from kreuzberg import KreuzbergError, extract_bytes_sync, extract_file_sync  # noqa: PLC0415 - only a worker needs them

    suffix = path.suffix.lower()
    config = _config(suffix)
    try:
        # UTF-8 is all that kreuzberg knows for these.
        if suffix in _MIME_TYPES and (text := read_unless_utf8(path)) is not None:
            result = extract_bytes_sync(text.encode(), _MIME_TYPES[suffix], config=config)
        else:
            with _named_in_utf8(path) as readable:
                result = extract_file_sync(readable, config=config)
    except KreuzbergError as error:
        raise _explain(error, path) from None
    except UnicodeError:
        raise UnreadableError(DocumentStatus.UNREADABLE, _NOT_TEXT) from None
    if result.content.count("\0") > _MAX_NULS * len(result.content):
        raise UnreadableError(DocumentStatus.UNREADABLE, _NOT_TEXT)
    return result


@contextmanager
def _named_in_utf8(path: Path) -> Iterator[Path]:
    """The path, or a link to it if its name is not UTF-8: kreuzberg takes no other."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory(prefix="rag-") as folder:
            link = Path(folder, f"document{path.suffix}")
            link.symlink_to(path.resolve())
            yield link
    else:
        yield path


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


def _markdown_pages(result: ExtractionResult, *, is_html: bool) -> list[Page]:
    text = clean(result.content)
    if is_html:
        text = _HTML_FRONT_MATTER.sub("", text)
    marks = list(_PAGE_MARK_PATTERN.finditer(text))
    if not marks:
        return [Page(None, text, tuple(markdown_headings(text)))]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    slides = [(int(mark[1]), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    return [Page(number, slide, tuple(markdown_headings(slide))) for number, slide in slides]
