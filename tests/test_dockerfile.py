"""The image, as far as it can be proven without a Docker engine: its steps, in another place."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.serving import ROOT, ServerProcess

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def steps(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def test_what_is_copied_exists_and_is_let_through() -> None:
    """.dockerignore leaves everything out that is not named in it."""
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {step.split()[0] for step in steps("COPY") if not step.startswith("--from")}
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)


def test_it_runs_without_root_and_has_its_volumes() -> None:
    assert steps("USER") == ["service"]
    assert json.loads(steps("VOLUME")[0]) == ["/service/documents", "/service/index_storage"]
    assert "/health/live" in steps("HEALTHCHECK")[0]


def test_what_is_copied_serves(tmp_path: Path) -> None:
    """The image's files alone, in an empty folder, with the image's command and health check."""
    for step in steps("COPY"):
        if step.startswith("--from"):
            continue
        source, target = step.split()
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / target)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    assert json.loads(steps("CMD")[0]) == ["python", "-m", "app"]
    server = ServerProcess({"PYTHONPATH": ""}, tmp_path / "log", cwd=tmp_path)
    try:
        server.wait_until_ready()
        check = json.loads(steps("HEALTHCHECK")[0].split("CMD", 1)[1])
        probe = subprocess.run(
            [sys.executable, *check[1:]],
            env={"PORT": str(server.port)},
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert probe.returncode == 0, probe.stderr
        assert server.stop() == 0
        dead = subprocess.run(
            [sys.executable, *check[1:]],
            env={"PORT": str(server.port)},
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert dead.returncode != 0
    finally:
        server.stop(9)


def test_it_installs_what_the_lock_pins() -> None:
    (install,) = (step for step in steps("RUN") if "pip install" in step)
    assert {"--require-hashes", "requirements.lock"} <= set(shlex.split(install))
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text()
