"""Reading 145 files from a parser project's tests: encrypted, truncated, recursive, mislabelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.documents.discovery import inspect, walk
from app.documents.pages import Page
from app.documents.reader_pool import ReaderPool, ReadFile
from app.domain.document import DocumentStatus
from tests.support.readers import read_all_pages
from tests.support.reading import DEFAULT_LIMITS

# All other files are read.
REFUSED = {
    DocumentStatus.EMPTY: {
        "testAltChunkHTML.docx",  # contains a page of HTML, which the parser ignores
        "testEXCEL_embeddedPDF_mac.xls",
        "testEXCEL_textbox.xlsx",
        "testODSMacro.ods",
        "testPPT_EmbeddedPDF.ppt",
        "testRTFIgnoredControlWord.rtf",  # the parser ignores its text as a comment
        "testWORD_header_hyperlink.doc",
    },
    DocumentStatus.NEEDS_OCR: {
        "testOCR.pdf",
        "testPDFFileEmbInAnnotation_noContents.pdf",
        "testPDF_Version.5.x.pdf",
        "testPDF_Version.6.x.pdf",
        "testPDF_Version.9.x.pdf",
        "testPDF_diffTitles.pdf",
        "testPDF_jsActionOnPage.pdf",
    },
    DocumentStatus.ENCRYPTED: {
        "password.xls",
        "protect.xlsx",
        "protectedFile.xlsx",
        "protected_normal_case.docx",
        "protected_upper_case.docx",
        "testEXCEL_protected_passtika.xls",
        "testEXCEL_protected_passtika.xlsx",
        "testEXCEL_protected_passtika_2.xlsx",
        "testODTEncrypted.odt",
        "testPDF_no_extract_no_accessibility_owner_user.pdf",
        "testPPT_protected_passtika.ppt",
        "testPPT_protected_passtika.pptx",
        "testPassword4Spaces.pdf",
        "testUnicodePassword.pdf",
        "testWORD_protected_drm.doc",
        "testWORD_protected_passtika.doc",
        "testWORD_protected_passtika.docx",
    },
    DocumentStatus.UNSUPPORTED: {
        "LibreOfficeImpress_odp_1.3.odp",
        "droste.zip",
        "test-documents-spanned.zip",
        "testIWorksNPEDetector.zip",
        "testMasterFooter.odp",
        "testODPMacro.odp",
        "testZIP_corrupted_oom.zip",
        "testZipEncrypted.zip",
    },
    DocumentStatus.UNREADABLE: {
        "test-with-unpack.json",  # several JSON values in one file
        "test.json",
        "testWORD_truncated.docx",
        "test_ignore_IBM420.html",  # Arabic EBCDIC
    },
}


@pytest.fixture(scope="module")
def documents(shared_data: Path) -> list[ReadFile[list[Page]]]:
    folder = shared_data / "hostile"
    reader = ReaderPool(workers=4, limits=DEFAULT_LIMITS, read=read_all_pages)
    return list(reader.read_all(inspect(folder, walk(folder))))


def test_each_is_read_or_refused_for_the_right_reason(documents: list[ReadFile[list[Page]]]) -> None:
    """By the defaults; none hangs, crashes, or is over its limits."""
    assert len(documents) == 145
    expected = {name: status for status, names in REFUSED.items() for name in names}
    refused = {
        document.name: document.status
        for document in documents
        if document.status is not DocumentStatus.INDEXED
    }
    assert refused == expected


def test_each_has_text_or_a_problem(documents: list[ReadFile[list[Page]]]) -> None:
    """Never silently nothing."""
    for document in documents:
        has_text = any(page.text.strip() for page in document.content or [])
        assert has_text != bool(document.problem), document.name
