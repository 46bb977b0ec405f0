"""The image, as far as it can be proven without a Docker engine: its steps, in another place."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

from tests.support.mounts import read_only
from tests.support.serving import ROOT, ServerProcess, clean_environment, free_port, wait_for

pytestmark = pytest.mark.slow

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def steps(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def test_every_copied_path_exists_and_is_not_ignored() -> None:
    """.dockerignore excludes all paths that it does not name."""
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {step.split()[0] for step in steps("COPY") if not step.startswith("--from")}
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)


def test_the_image_runs_without_root_and_has_its_volumes() -> None:
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
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, prefix / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, prefix / target)


def run_step(step: str, prefix: Path) -> None:
    subprocess.run(["sh", "-euc", step], cwd=prefix, check=True, timeout=500)


def make_image(prefix: Path, *, download: bool = False) -> Path:
    """Do the steps of both stages in a folder that stands for the image's /service.

    Args:
        download: install the dependencies as the first stage does; else those of the tests are used, without
            the project that is installed beside them.

    Returns:
        The folder of its commands.
    """
    copy_files(prefix)
    install, _, finish = steps("RUN")
    if download:
        run_step(install, prefix)
    else:
        venv = prefix / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
        paths = sysconfig.get_path("purelib"), sysconfig.get_path("purelib", vars={"base": str(venv)})
        # A path alone: the .pth file in it, by which the tests find the project, is not followed.
        Path(paths[1], "dependencies.pth").write_text(f"{paths[0]}\n")
    run_step(finish, prefix)
    return prefix / ".venv" / "bin"


def check_health(port: int) -> subprocess.CompletedProcess[bytes]:
    """By the image's own command."""
    command = json.loads(steps("HEALTHCHECK")[0].split("CMD", 1)[1])
    return subprocess.run(
        [sys.executable, *command[1:]], env={"PORT": str(port)}, capture_output=True, timeout=20, check=False
    )


def test_the_copied_files_are_enough_to_serve(tmp_path: Path) -> None:
    """They are copied to an empty folder, and run with the image's command and health check."""
    commands = make_image(tmp_path)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    assert json.loads(steps("CMD")[0]) == ["python", "-m", "app"]
    server = ServerProcess(
        {"PYTHONPATH": ""}, tmp_path / "log", cwd=tmp_path, python=str(commands / "python")
    )
    try:
        server.wait_until_ready()
        wait_for(lambda: check_health(server.port).returncode == 0, "the health check to succeed")
        assert server.stop() == 0
        assert check_health(server.port).returncode != 0
    finally:
        server.stop(9)


@pytest.mark.timeout(600)
def test_the_image_works_with_a_read_only_root(tmp_path: Path, soak: bool) -> None:
    """Index, doctor and server run as in a pod: without home and network, and with two writable volumes.

    In its long form, what is installed is what the Dockerfile's own steps install.
    """
    prefix, volumes = tmp_path / "service", tmp_path / "volumes"
    commands = make_image(prefix, download=soak)
    compiled = {path.parent.parent for path in prefix.glob("app/**/*.pyc")}
    assert compiled == {path.parent for path in prefix.glob("app/**/*.py")}
    for name in ("documents", "index", "tmp"):
        (volumes / name).mkdir(parents=True)
    (volumes / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    within = [*read_only(prefix), *read_only(volumes / "documents")]
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
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
    for command in (
        ["python", "scripts/reindex.py"],
        ["rag-service", "reindex"],
        ["python", "scripts/doctor.py"],
        ["rag-service", "doctor"],
    ):
        subprocess.run(
            [*within, *command],
            cwd=prefix,
            env=clean_environment() | environment | {"PORT": str(free_port())},
            check=True,
            timeout=60,
        )
    server = ServerProcess(
        environment, tmp_path / "log", prefix, [*within, *read_only(volumes / "index")], "python"
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


def test_both_stages_use_the_same_pinned_base() -> None:
    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-\w+", steps("ARG")[0])
    assert steps("FROM") == ["${BASE} AS build", "${BASE}"]


def test_the_image_installs_the_locked_versions() -> None:
    install, _, finish = steps("RUN")
    assert {"--no-index", "--no-deps"} <= set(shlex.split(finish))
    assert {"--require-hashes", "requirements.lock"} <= set(shlex.split(install))
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text()
