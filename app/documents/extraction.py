"""Reading one file into pages of text with headings, in a process of its own, which may be killed.

kreuzberg reads the file. This module adds what its output lacks: page numbers for PDFs and slides, headings
with offsets, and a status for a file that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.documents.encodings import read_text
from app.documents.encryption import is_protected
from app.documents.limits import is_out_of_memory
from app.documents.pages import Page, UnreadableError, clean, markdown_headings
from app.documents.pdf import pdf_pages
from app.domain.document import DocumentStatus

if TYPE_CHECKING:
    from kreuzberg import ExtractionConfig, ExtractionResult

# Part of an index's recipe: a text depends on its file and on this. The number of the rules stands for this
# module, `pdf`, `pages` and `encodings`: raise it when they produce other texts.
READER_VERSION = f"kreuzberg {version('kreuzberg')}; rules 2"

TEXT_SUFFIXES = frozenset({".txt", ".text", ".log", ".rst"})
MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
READABLE_SUFFIXES = (
    TEXT_SUFFIXES
    | MARKDOWN_SUFFIXES
    | {
        *(".pdf", ".docx", ".doc", ".pptx", ".ppt", ".xlsx", ".xls", ".odt", ".ods", ".rtf", ".epub"),
        *(".html", ".htm", ".xhtml", ".csv", ".tsv", ".eml", ".msg", ".json", ".xml"),
    }
)

# kreuzberg reads them as UTF-8, whatever they declare.
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
# kreuzberg puts this between slides. Letters and digits only, since it escapes anything else.
_PAGE_MARK = "qz7pagebreak{page_num}qz7"
_PAGE_MARK_PATTERN = re.compile(r"^qz7pagebreak(\d+)qz7$", re.MULTILINE)

# kreuzberg renders an HTML page's <meta> as YAML front matter and reads that as Markdown again.
_HTML_FRONT_MATTER = re.compile(r"\A---\n(?:meta-[\w.:-]+: .*\n)*\n## (?:title|meta-[\w.:-]+): .*\n*")

_MAX_NULS = 0.001
_PROTECTED = "it is protected by a password or by rights management"
_NOT_TEXT = "it contains binary data, not text"


def read_pages(path: Path) -> list[Page]:
    """Read a file.

    Raises:
        UnreadableError: there is nothing to index; its text gives the reason.
        MemoryError: the parser ran out of memory.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE_SUFFIXES:
        kind = f"{suffix} files are" if suffix else "files without an extension are"
        raise UnreadableError(DocumentStatus.UNSUPPORTED, f"{kind} not supported")
    if path.stat().st_size == 0:
        raise UnreadableError(DocumentStatus.EMPTY, "the file has 0 bytes")
    if is_protected(path):
        raise UnreadableError(DocumentStatus.ENCRYPTED, _PROTECTED)
    if suffix in TEXT_SUFFIXES | MARKDOWN_SUFFIXES:
        pages = [_text_page(_read_text(path), is_markdown=suffix in MARKDOWN_SUFFIXES)]
    elif suffix == ".pdf":
        pages = pdf_pages(_extract(path))
    else:
        pages = _rendered_pages(_extract(path), is_html=suffix in _HTML_SUFFIXES)
    if not any(page.text.strip() for page in pages):
        if suffix == ".pdf":
            raise UnreadableError(
                DocumentStatus.NEEDS_OCR, "its pages contain no text: if they are scans, run OCR on it first"
            )
        raise UnreadableError(DocumentStatus.EMPTY, "no text was found in it")
    return pages


def _read_text(path: Path) -> str:
    try:
        text = read_text(path)
    except UnicodeError:
        raise UnreadableError(DocumentStatus.UNREADABLE, _NOT_TEXT) from None
    _check_text(text)
    return text


def _check_text(text: str) -> None:
    if text.count("\0") > _MAX_NULS * len(text):
        raise UnreadableError(DocumentStatus.UNREADABLE, _NOT_TEXT)


def _text_page(text: str, *, is_markdown: bool) -> Page:
    """Make a page of unchanged text; kreuzberg's rendering of Markdown loses images' texts and list items."""
    text = clean(text)
    return Page(None, text, tuple(markdown_headings(text)) if is_markdown else (), is_markdown=is_markdown)


def _extract(path: Path) -> ExtractionResult:
    # It takes 0.06 s and 11 MB to import, in the server, too, which only starts the processes that need it.
    from kreuzberg import KreuzbergError, extract_bytes_sync, extract_file_sync  # noqa: PLC0415

    suffix = path.suffix.lower()
    config = _config(suffix)
    try:
        if suffix in _HTML_SUFFIXES:
            result = extract_bytes_sync(_read_text(path).encode(), "text/html", config=config)
        else:
            with _named_in_utf8(path) as readable:
                result = extract_file_sync(readable, config=config)
    except KreuzbergError as error:
        if is_out_of_memory(str(error)):
            raise MemoryError from None
        raise _explain(error, path) from None
    _check_text(result.content)
    return result


@contextmanager
def _named_in_utf8(path: Path) -> Iterator[Path]:
    """Provide a path in UTF-8, a link if the name is not: kreuzberg accepts no other."""
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
    from kreuzberg import ExtractionConfig, PageConfig  # noqa: PLC0415 - see `_extract`

    return ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg] # its stub lacks it
        output_format="markdown",
        pages=PageConfig(
            extract_pages=True, insert_page_markers=suffix == ".pptx", marker_format=f"\n\n{_PAGE_MARK}\n\n"
        ),
        include_document_structure=suffix == ".pdf",
        html_options={"preprocessing": {"enabled": True, "preset": "standard", "remove_navigation": True}},
    )


def _explain(error: Exception, path: Path) -> UnreadableError:
    """Translate a parser's error into a status and a sentence."""
    message = " ".join(str(error).split())
    if "password" in message.lower() or "encrypted" in message.lower():
        return UnreadableError(DocumentStatus.ENCRYPTED, _PROTECTED)
    if "security limit" in message.lower():
        return UnreadableError(DocumentStatus.TOO_LARGE, f"it exceeds a limit of its parser: {message[:200]}")
    kind = path.suffix.lower().lstrip(".").upper()
    return UnreadableError(DocumentStatus.UNREADABLE, f"not a valid {kind} file: {message[:200]}")


def _rendered_pages(result: ExtractionResult, *, is_html: bool) -> list[Page]:
    text = result.content
    if is_html:
        text = _HTML_FRONT_MATTER.sub("", text)
    marks = list(_PAGE_MARK_PATTERN.finditer(text))
    if not marks:
        return [_text_page(text, is_markdown=True)]
    text = clean(text)
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    slides = [(int(mark[1]), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    return [Page(number, slide, tuple(markdown_headings(slide))) for number, slide in slides]
