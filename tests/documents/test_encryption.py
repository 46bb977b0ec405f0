"""Protected files that a parser does not recognise as such; real ones are among the hostile files."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from app.documents.encryption import is_protected
from app.documents.extraction import read_pages
from app.documents.pages import UnreadableError
from app.domain.document import DocumentStatus
from tests.conftest import SAMPLE_DOCUMENTS

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
SECTOR = 512


def directory_entry(name: str, first_sector: int = 0) -> bytes:
    encoded = name.encode("utf-16-le")
    return struct.pack("<64sH50xI8x", encoded, len(encoded) + 2, first_sector)


def ole_file(path: Path, *streams: str, text: str = "", word_flags: int = 0) -> Path:
    """Write an OLE file: header, directory, a sector with text, and the beginning of Word's main stream."""
    header = OLE_MAGIC.ljust(30, b"\0") + struct.pack("<H", 9)
    directory = b"".join(directory_entry(name, first_sector=2) for name in streams)
    word = struct.pack("<H8xH", 0xA5EC, word_flags)
    sectors = [header, directory, text.encode("utf-16-le"), word]
    path.write_bytes(b"".join(sector.ljust(SECTOR, b"\0") for sector in sectors))
    return path


@pytest.mark.parametrize("name", ["EncryptedPackage", "ENCRYPTEDPACKAGE", "EncryptedSummary", "\tDRMContent"])
def test_protected_office_files_are_known_by_a_stream(tmp_path: Path, name: str) -> None:
    """The names of their streams tell that they are encrypted."""
    path = ole_file(tmp_path / "secret.docx", "Root Entry", name)
    with pytest.raises(UnreadableError) as refusal:
        read_pages(path)
    assert refusal.value.status is DocumentStatus.ENCRYPTED


def test_a_document_about_encryption_is_not_mistaken_for_a_protected_one(tmp_path: Path) -> None:
    """Word stores text in the same encoding as the names of streams."""
    text = "EncryptedPackage\0\0 EncryptedSummary \tDRMContent"
    assert not is_protected(ole_file(tmp_path / "a.doc", "Root Entry", "WordDocument", text=text))


@pytest.mark.parametrize(("flags", "protected"), [(0x13F0, True), (0x12F0, False)])
def test_old_protected_word_files_are_known_by_a_flag(tmp_path: Path, flags: int, protected: bool) -> None:
    """The flag is in the header of the main stream."""
    path = ole_file(tmp_path / "a.doc", "Root Entry", "WordDocument", word_flags=flags)
    assert is_protected(path) is protected


def test_a_damaged_office_file_is_left_to_its_parser(tmp_path: Path) -> None:
    """A truncated file does not count as protected."""
    whole = ole_file(tmp_path / "a.doc", "Root Entry", "WordDocument", word_flags=0x13F0).read_bytes()
    for size in range(1, len(whole) - SECTOR, 61):
        (tmp_path / "cut.doc").write_bytes(whole[:size])
        assert not is_protected(tmp_path / "cut.doc")


def test_protected_opendocument_files_are_known_by_their_manifest(tmp_path: Path) -> None:
    """It lists the encryption of their members."""
    source = SAMPLE_DOCUMENTS / "policies" / "code-of-conduct.odt"
    assert not is_protected(source)
    with zipfile.ZipFile(tmp_path / "secret.odt", "w") as archive:
        archive.writestr("META-INF/manifest.xml", "<manifest:encryption-data manifest:checksum='x'/>")
    assert is_protected(tmp_path / "secret.odt")
    (tmp_path / "damaged.odt").write_bytes(source.read_bytes()[:-30])
    assert not is_protected(tmp_path / "damaged.odt")
