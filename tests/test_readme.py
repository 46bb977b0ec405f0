"""What the README tells a reader to run, run as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.serving import ROOT

LOCAL = re.compile(r"(?:http://)?localhost:8000")


def examples(language: str, mentioning: str) -> list[str]:
    """The README's code blocks of a language in which a word stands."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    found = [block for block in blocks if mentioning in block]
    assert found, f"the README has no {language} example with {mentioning}"
    return found


def run(command: list[str], code: str, service: httpx.Client, folder: Path) -> str:
    done = subprocess.run(
        [*command, LOCAL.sub(str(service.base_url), code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", ["/query ", "/query/stream "])
def test_curl(sample: httpx.Client, tmp_path: Path, path: str) -> None:
    for code in examples("sh", f"curl -s{'N' if 'stream' in path else ''} localhost:8000{path}"):
        shown = run(["bash", "-euc"], code, sample, tmp_path)
        assert '"status":"answered"' in shown
        assert shown.endswith("data: [DONE]\n\n") == ("stream" in path)


def test_python_shows_a_stream(sample: httpx.Client, tmp_path: Path) -> None:
    (code,) = examples("python", "/query/stream")
    assert "16 weeks" in run([sys.executable, "-c"], code, sample, tmp_path)


def test_openais_client(sample: httpx.Client, tmp_path: Path) -> None:
    (code,) = examples("python", "from openai import OpenAI")
    shown = run([sys.executable, "-c"], code, sample, tmp_path)
    assert "16 weeks" in shown
    assert "policies/leave.pdf policies/leave.pdf#page=3" in shown


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_javascript_shows_a_stream(sample: httpx.Client, tmp_path: Path) -> None:
    (code,) = examples("javascript", "/query/stream")
    shown = run(["node", "--input-type=module", "--eval"], code, sample, tmp_path)
    assert "16 weeks" in shown
