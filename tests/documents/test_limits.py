"""Limits on reading a file, and the status of a file that exceeds one."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from app.documents.discovery import SourceFile, inspect, walk
from app.documents.limits import MB, check_size
from app.documents.pages import UnreadableError
from app.documents.reader_pool import ReaderPool, ReadFile
from app.domain.document import DocumentStatus
from tests.conftest import SAMPLE_DOCUMENTS
from tests.support.readers import read_all_pages, read_much, use_memory
from tests.support.reading import DEFAULT_LIMITS, file_at, make_long_pdf
from tests.support.zips import add_zeros

pytestmark = pytest.mark.slow

T = TypeVar("T")

WORD = SAMPLE_DOCUMENTS / "policies" / "remote-work.docx"


def read_all(
    files: list[SourceFile], read: Callable[[Path, str], T], *, memory_mb: int, inflated_mb: int = 512
) -> dict[str, ReadFile[T]]:
    limits = replace(DEFAULT_LIMITS, memory_mb=memory_mb, inflated_mb=inflated_mb)
    reader = ReaderPool(workers=1, limits=limits, read=read)
    return {document.name: document for document in reader.read_all(files)}


def write(path: Path, content: object) -> SourceFile:
    path.write_text(str(content))
    return file_at(path)


def sparse(path: Path, mb: int) -> Path:
    path.touch()
    os.truncate(path, mb * MB)
    return path


def test_a_report_of_500_pages_is_within_the_default_limits(tmp_path: Path) -> None:
    """Its pages are as dense as those of real reports."""
    make_long_pdf(tmp_path / "long.pdf")
    (document,) = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=read_all_pages).read_all(
        inspect(tmp_path, walk(tmp_path))
    )
    pages = document.content or []
    assert len(pages) == 500
    assert all(len(page.text) > 3000 for page in pages)


def test_the_sample_documents_are_within_the_default_limits() -> None:
    """None of them counts as a bomb."""
    for file in walk(SAMPLE_DOCUMENTS):
        check_size(file.path, DEFAULT_LIMITS.inflated_mb)


@pytest.mark.parametrize(
    ("name", "declared_bytes"),
    [
        ("policies/remote-work.docx", None),
        ("policies/remote-work.docx", 100),
        ("products/spare-parts.xlsx", None),
        ("products/product-overview.pptx", None),
        ("policies/code-of-conduct.odt", None),
        ("policies/onboarding-guide.epub", 100),
    ],
)
def test_a_zip_bomb_is_rejected(tmp_path: Path, name: str, declared_bytes: int | None) -> None:
    """With default limits: half a MB that inflates to 600, and may claim to have 100 bytes."""
    bomb = add_zeros(SAMPLE_DOCUMENTS / name, tmp_path / Path(name).name, 600, declared_bytes)
    assert bomb.stat().st_size < MB
    with pytest.raises(UnreadableError, match="MAX_INFLATED_MB \\(512 MB\\)") as refusal:
        check_size(bomb, DEFAULT_LIMITS.inflated_mb)
    assert refusal.value.status is DocumentStatus.TOO_LARGE


def test_a_damaged_member_does_not_hide_a_bomb(tmp_path: Path) -> None:
    """The members after it are measured."""
    bomb = add_zeros(WORD, tmp_path / "bomb.docx", 20)
    content = bytearray(bomb.read_bytes())
    content[60:80] = b"\xff" * 20
    bomb.write_bytes(content)
    with pytest.raises(UnreadableError):
        check_size(bomb, 10)


def test_a_zip_is_measured_in_little_memory(tmp_path: Path) -> None:
    """The measuring does not keep what it inflates."""
    bomb = add_zeros(WORD, tmp_path / "bomb.docx", 200, 100)
    tracemalloc.start()
    with pytest.raises(UnreadableError):
        check_size(bomb, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * MB


@pytest.mark.parametrize("declared_bytes", [None, 100], ids=["honest", "forged"])
def test_a_zip_below_the_limit_is_accepted(tmp_path: Path, declared_bytes: int | None) -> None:
    """The ratio of its compression does not matter."""
    check_size(add_zeros(WORD, tmp_path / "large.docx", 95, declared_bytes), 100)


def test_a_damaged_zip_is_left_to_its_parser(tmp_path: Path) -> None:
    """The parser reports the damage better."""
    whole = add_zeros(WORD, tmp_path / "whole.docx", 1).read_bytes()
    for place in [*range(0, len(whole), 499), *range(len(whole) - 1500, len(whole), 13)]:
        (tmp_path / "damaged.docx").write_bytes(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])
        check_size(tmp_path / "damaged.docx", 3)
        (tmp_path / "cut.docx").write_bytes(whole[:place])
        check_size(tmp_path / "cut.docx", 3)


def test_a_huge_file_is_rejected_unread(tmp_path: Path) -> None:
    """It would fill the memory. A file of an unsupported format is not reported as too large."""
    files = [file_at(sparse(tmp_path / name, 3000)) for name in ("log.txt", "film.mp4")]
    documents = read_all(files, read_all_pages, memory_mb=DEFAULT_LIMITS.memory_mb)
    assert documents["log.txt"].status is DocumentStatus.TOO_LARGE
    assert "larger than MAX_INFLATED_MB" in (documents["log.txt"].problem or "")
    assert documents["film.mp4"].status is DocumentStatus.UNSUPPORTED


def test_the_memory_for_each_file_is_limited(tmp_path: Path) -> None:
    """The limit applies to one file, in addition to the memory of its process."""
    files = [write(tmp_path / name, mb) for name, mb in {"1": 10, "2": 40, "3": 10}.items()]
    documents = read_all(files, use_memory, memory_mb=20)
    assert documents["1"].status is documents["3"].status is DocumentStatus.INDEXED
    assert documents["2"].status is DocumentStatus.TOO_LARGE
    assert "PARSE_MEMORY_MB (20 MB)" in (documents["2"].problem or "")


def test_a_parser_out_of_memory_is_distinguished_from_a_crash(tmp_path: Path) -> None:
    """Rust code aborts in both cases. 20 MB of tiny paragraphs take the parser 580 MB."""
    bomb = tmp_path / "paragraphs.html"
    bomb.write_text("<p>boom</p>" * (20 * MB // len("<p>boom</p>")))
    files = [file_at(bomb), file_at(WORD)]
    documents = read_all(files, read_all_pages, memory_mb=128)
    assert documents[bomb.name].status is DocumentStatus.TOO_LARGE
    assert documents[WORD.name].status is DocumentStatus.INDEXED


def test_memory_taken_by_a_file_is_returned(tmp_path: Path) -> None:
    """Allocators keep it, so the process is replaced."""
    names = {"1": 1, "2": 1, "3-keep": 400, "4": 1}
    documents = read_all(
        [write(tmp_path / name, mb) for name, mb in names.items()], use_memory, memory_mb=1024
    )
    processes = [documents[name].content for name in names]
    assert None not in processes
    assert processes[0] == processes[1] == processes[2]
    assert processes[3] != processes[2]


def test_the_size_of_an_answer_is_limited(tmp_path: Path) -> None:
    """The parent process holds the answers of several files."""
    files = [write(tmp_path / name, mb) for name, mb in {"1": 7, "2": 9}.items()]
    documents = read_all(files, read_much, memory_mb=1024, inflated_mb=64)
    assert documents["1"].status is DocumentStatus.INDEXED
    assert documents["2"].status is DocumentStatus.TOO_LARGE
    assert "more than 8 MB" in (documents["2"].problem or "")
