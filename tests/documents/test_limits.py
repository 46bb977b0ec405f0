"""What reading a file may take, and what becomes of one that takes more."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from app.documents.discovery import InspectedFile, inspect, walk
from app.documents.limits import MB, check_size
from app.documents.pages import UnreadableError
from app.documents.reader_pool import Document, ReaderPool
from app.domain.document import DocumentStatus
from tests.conftest import SAMPLE_DOCUMENTS
from tests.support.readers import read_all_pages, read_much, use_memory
from tests.support.reading import DEFAULT_LIMITS, file_at, make_long_pdf
from tests.support.zips import add_zeros

T = TypeVar("T")

WORD = SAMPLE_DOCUMENTS / "policies" / "remote-work.docx"


def read_all(
    files: list[InspectedFile], read: Callable[[Path, str], T], *, memory_mb: int, inflated_mb: int = 512
) -> dict[str, Document[T]]:
    limits = replace(DEFAULT_LIMITS, memory_mb=memory_mb, inflated_mb=inflated_mb)
    reader = ReaderPool(workers=1, limits=limits, read=read)
    return {document.name: document for document in reader.read_all(files)}


def write(path: Path, content: object) -> InspectedFile:
    path.write_text(str(content))
    return file_at(path)


def sparse(path: Path, mb: int) -> Path:
    path.touch()
    os.truncate(path, mb * MB)
    return path


def test_a_report_of_500_pages_is_within_the_defaults(tmp_path: Path) -> None:
    """Text on each, as dense as it is in real ones."""
    make_long_pdf(tmp_path / "long.pdf")
    (document,) = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=read_all_pages).read_all(
        inspect(tmp_path, walk(tmp_path))
    )
    pages = document.content or []
    assert len(pages) == 500
    assert all(len(page.text) > 3000 for page in pages)


def test_the_samples_are_within_the_defaults() -> None:
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
def test_a_zip_bomb_is_refused(tmp_path: Path, name: str, declared_bytes: int | None) -> None:
    """By the defaults: half a MB that inflates to 600, and may say that it is 100 bytes."""
    bomb = add_zeros(SAMPLE_DOCUMENTS / name, tmp_path / Path(name).name, 600, declared_bytes)
    assert bomb.stat().st_size < MB
    with pytest.raises(UnreadableError, match="MAX_INFLATED_MB \\(512 MB\\)") as refusal:
        check_size(bomb, DEFAULT_LIMITS.inflated_mb)
    assert refusal.value.status is DocumentStatus.TOO_LARGE


def test_a_damaged_member_hides_no_bomb(tmp_path: Path) -> None:
    bomb = add_zeros(WORD, tmp_path / "bomb.docx", 20)
    content = bytearray(bomb.read_bytes())
    content[60:80] = b"\xff" * 20
    bomb.write_bytes(content)
    with pytest.raises(UnreadableError):
        check_size(bomb, 10)


def test_a_zip_is_measured_in_little_memory(tmp_path: Path) -> None:
    bomb = add_zeros(WORD, tmp_path / "bomb.docx", 200, 100)
    tracemalloc.start()
    with pytest.raises(UnreadableError):
        check_size(bomb, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * MB


@pytest.mark.parametrize("declared_bytes", [None, 100], ids=["honest", "forged"])
def test_what_inflates_to_less_is_not_refused(tmp_path: Path, declared_bytes: int | None) -> None:
    """However much it is packed."""
    check_size(add_zeros(WORD, tmp_path / "large.docx", 95, declared_bytes), 100)


def test_a_damaged_zip_is_left_to_its_parser(tmp_path: Path) -> None:
    """That knows better what is wrong with it."""
    whole = add_zeros(WORD, tmp_path / "whole.docx", 1).read_bytes()
    for place in [*range(0, len(whole), 499), *range(len(whole) - 1500, len(whole), 13)]:
        (tmp_path / "damaged.docx").write_bytes(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])
        check_size(tmp_path / "damaged.docx", 3)
        (tmp_path / "cut.docx").write_bytes(whole[:place])
        check_size(tmp_path / "cut.docx", 3)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """It would fill the memory first. Of a kind that is not read, it is not said to be too large."""
    files = [file_at(sparse(tmp_path / name, 3000)) for name in ("log.txt", "film.mp4")]
    documents = read_all(files, read_all_pages, memory_mb=DEFAULT_LIMITS.memory_mb)
    assert documents["log.txt"].status is DocumentStatus.TOO_LARGE
    assert "larger than MAX_INFLATED_MB" in (documents["log.txt"].problem or "")
    assert documents["film.mp4"].status is DocumentStatus.UNSUPPORTED


def test_memory_is_limited(tmp_path: Path) -> None:
    """For each file alone: beside what the process has by itself, and the next one has as much."""
    files = [write(tmp_path / name, mb) for name, mb in {"1": 10, "2": 40, "3": 10}.items()]
    documents = read_all(files, use_memory, memory_mb=20)
    assert documents["1"].status is documents["3"].status is DocumentStatus.INDEXED
    assert documents["2"].status is DocumentStatus.TOO_LARGE
    assert "PARSE_MEMORY_MB (20 MB)" in (documents["2"].problem or "")


def test_a_parser_that_runs_out_of_memory_is_told_from_one_that_crashes(tmp_path: Path) -> None:
    """It aborts, as Rust does. 20 MB of tiny paragraphs take it 580 MB."""
    bomb = tmp_path / "paragraphs.html"
    bomb.write_text("<p>boom</p>" * (20 * MB // len("<p>boom</p>")))
    files = [file_at(bomb), file_at(WORD)]
    documents = read_all(files, read_all_pages, memory_mb=128)
    assert documents[bomb.name].status is DocumentStatus.TOO_LARGE
    assert documents[WORD.name].status is DocumentStatus.INDEXED


def test_what_a_file_took_is_given_back(tmp_path: Path) -> None:
    """Allocators keep it; the process is replaced."""
    names = {"1": 1, "2": 1, "3-keep": 400, "4": 1}
    documents = read_all(
        [write(tmp_path / name, mb) for name, mb in names.items()], use_memory, memory_mb=1024
    )
    processes = [documents[name].content for name in names]
    assert None not in processes
    assert processes[0] == processes[1] == processes[2]
    assert processes[3] != processes[2]


def test_what_leaves_a_process_is_limited(tmp_path: Path) -> None:
    """The one that gets it holds that of several."""
    files = [write(tmp_path / name, mb) for name, mb in {"1": 7, "2": 9}.items()]
    documents = read_all(files, read_much, memory_mb=1024, inflated_mb=64)
    assert documents["1"].status is DocumentStatus.INDEXED
    assert documents["2"].status is DocumentStatus.TOO_LARGE
    assert "more than 8 MB" in (documents["2"].problem or "")
