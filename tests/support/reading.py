"""Files for tests to read, and the default limits."""

from __future__ import annotations

import random
from pathlib import Path

from fpdf import FPDF

from app.config.groups.content import DocumentSettings
from app.documents.discovery import SourceFile
from app.documents.limits import ReadingLimits

_SETTINGS = DocumentSettings()
DEFAULT_LIMITS = ReadingLimits(
    timeout_s=_SETTINGS.parse_timeout_s,
    memory_mb=_SETTINGS.parse_memory_mb,
    inflated_mb=_SETTINGS.max_inflated_mb,
)


def file_at(path: Path) -> SourceFile:
    """To be read, without being looked into before."""
    return SourceFile(path.name, path, "", 0)


def make_long_pdf(path: Path) -> Path:
    """Write a PDF of 500 pages with 45 lines and 4,000 characters each, like a report."""
    chooser = random.Random(1)
    words = ["".join(chooser.choices("etaoinshrdlu", k=chooser.randint(2, 9))) for _ in range(3000)]
    lines = [" ".join(chooser.choices(words, k=13)) for _ in range(3000)]
    pdf = FPDF()
    for page in range(1, 501):
        pdf.add_page()
        pdf.set_font("helvetica", "B", size=14)
        pdf.text(20, 20, f"Chapter {page}")
        pdf.set_font("helvetica", size=10)
        for line in range(44):
            pdf.text(20, 30 + 5.5 * line, f"{page}.{line} {chooser.choice(lines)}.")
    pdf.output(str(path))
    return path
