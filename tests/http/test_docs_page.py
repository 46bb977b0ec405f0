"""The documentation page, in a real browser without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

OFFLINE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def test_the_page_loads_nothing_from_elsewhere(sample: httpx.Client) -> None:
    """FastAPI's own page is blank if no CDN can be reached."""
    page = sample.get("/docs").text
    assert "https://" not in page
    assert "/static-offline-docs/swagger-ui-bundle.js" in page
    assert sample.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_a_browser_shows_the_routes(sample: httpx.Client, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: apt-get install chromium")
    shown = subprocess.run(
        [
            *(browser, *OFFLINE, f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom"),
            str(sample.base_url.join("/docs")),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    ).stdout
    for text in ("/query", "/retrieve", "/documents", "/health/live", "Answer a question from the documents"):
        assert text in shown
