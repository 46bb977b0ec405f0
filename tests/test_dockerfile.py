"""The image, as far as it can be proven without a Docker engine: its steps, in another place."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.mounts import read_only
from tests.support.serving import ROOT, ServerProcess, clean_environment, free_port, wait_for

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
    (user,) = steps("USER")
    assert int(user) > 0
    assert f"--uid {user} " in steps("RUN")[1]
    assert json.loads(steps("VOLUME")[0]) == ["/service/documents", "/service/index_storage"]
    assert "/health/live" in steps("HEALTHCHECK")[0]


def copy_files(prefix: Path) -> None:
    """As the COPY steps of the second stage do, into a folder that stands for the image's /service."""
    prefix.mkdir(exist_ok=True)
    for step in steps("COPY"):
        if step.startswith("--from"):
            continue
        source, target = step.split()
        (prefix / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, prefix / target)


def check_health(port: int) -> subprocess.CompletedProcess[bytes]:
    """By the image's own command."""
    command = json.loads(steps("HEALTHCHECK")[0].split("CMD", 1)[1])
    return subprocess.run(
        [sys.executable, *command[1:]], env={"PORT": str(port)}, capture_output=True, timeout=20, check=False
    )


def test_what_is_copied_serves(tmp_path: Path) -> None:
    """The image's files alone, in an empty folder, with the image's command and health check."""
    copy_files(tmp_path)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    assert json.loads(steps("CMD")[0]) == ["python", "-m", "app"]
    server = ServerProcess({"PYTHONPATH": ""}, tmp_path / "log", cwd=tmp_path)
    try:
        server.wait_until_ready()
        wait_for(lambda: check_health(server.port).returncode == 0, "the health check to succeed")
        assert server.stop() == 0
        assert check_health(server.port).returncode != 0
    finally:
        server.stop(9)


@pytest.mark.timeout(600)
def test_the_image_works_with_a_read_only_root(tmp_path: Path, soak: bool) -> None:
    """Index, doctor and server, as pods run them: no home, no network, nothing to write to but two volumes.

    In its long form, what is installed is what the Dockerfile's own steps install.
    """
    prefix, volumes = tmp_path / "service", tmp_path / "volumes"
    copy_files(prefix)
    python = sys.executable
    if soak:
        install, _, compile_all = steps("RUN")
        for step in (install, compile_all):
            subprocess.run(["sh", "-euc", step], cwd=prefix, check=True, timeout=500)
        python = str(prefix / ".venv/bin/python")
        assert {path.parent.parent.name for path in prefix.glob("app/**/*.pyc")} >= {"app", "api"}
    for name in ("documents", "index", "tmp"):
        (volumes / name).mkdir(parents=True)
    (volumes / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    within = [*read_only(prefix), *read_only(volumes / "documents")]
    environment = {
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
        "TMPDIR": str(volumes / "tmp"),
        "DOCUMENTS_DIR": str(volumes / "documents"),
        "INDEX_DIR": str(volumes / "index"),
        # Whoever asked for anything would not get it.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    before = sorted(prefix.rglob("*"))
    for script in ("reindex", "doctor"):
        subprocess.run(
            [*within, python, f"scripts/{script}.py"],
            cwd=prefix,
            env=clean_environment() | environment | {"PORT": str(free_port())},
            check=True,
            timeout=60,
        )
    server = ServerProcess(
        environment, tmp_path / "log", prefix, [*within, *read_only(volumes / "index")], python
    )
    try:
        server.wait_until_ready()
        question = {"query": "How long is parental leave?"}
        answer = httpx.post(f"{server.url}/query", json=question, timeout=60).json()
        assert "16 weeks" in answer["answer"]
        assert server.stop() == 0
        assert "Traceback" not in server.output
    finally:
        server.stop(9)
    assert sorted(prefix.rglob("*")) == before
    assert list((volumes / "tmp").iterdir()) == []


def test_the_base_is_pinned_and_used_twice() -> None:
    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-\w+", steps("ARG")[0])
    assert steps("FROM") == ["${BASE} AS build", "${BASE}"]


def test_it_installs_what_the_lock_pins() -> None:
    (install,) = (step for step in steps("RUN") if "pip install" in step)
    assert {"--require-hashes", "requirements.lock"} <= set(shlex.split(install))
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text()
