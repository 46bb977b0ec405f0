"""`rag-service`: one command that runs the others, installed with the project."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, version
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app import __version__
from app.bootstrap import tracing
from tests.support.serving import ROOT, clean_environment

pytestmark = pytest.mark.slow

INSTALLED = Path(sys.executable).with_name("rag-service")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = ("serve", "reindex", "doctor", "migrate", "make-key")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )


def test_all_versions_agree(sample_on_disk: httpx.Client) -> None:
    """The command, the OpenAPI document, the installed project and the changelog have the same one."""
    assert run(INSTALLED, "--version").stdout == f"rag-service {__version__}\n"
    assert sample_on_disk.get("/openapi.json").json()["info"]["version"] == __version__
    assert version("rag-service") == __version__
    assert f"The version is {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_help_lists_the_commands() -> None:
    done = run(INSTALLED, "--help")
    assert done.returncode == 0
    assert tuple(re.findall(r"^    ([\w-]+) ", done.stdout, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("arguments", [[], ["no-such"], ["--no-such"]], ids=str)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = run(INSTALLED, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: rag-service " in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_own_options(command: str, tmp_path: Path) -> None:
    """Its help and its errors show the name it was called by."""
    done = run(INSTALLED, command, "--help", cwd=tmp_path)
    assert done.stdout.startswith(f"usage: rag-service {command} ")
    done = run(INSTALLED, command, "--no-such", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: rag-service {command} ")


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("reindex", "reindex"),
        ("doctor", "doctor"),
        ("migrate", "migrate_index"),
        ("make-key", "make_key"),
    ],
)
def test_each_script_has_the_options_of_its_command(command: str, script: str, tmp_path: Path) -> None:
    """It works in any folder."""
    of_script = run(sys.executable, ROOT / "scripts" / f"{script}.py", "--help", cwd=tmp_path).stdout
    of_command = run(INSTALLED, command, "--help", cwd=tmp_path).stdout
    assert of_script.startswith(f"usage: {script}.py ")
    assert of_script.split("\n\n", 1)[1] == of_command.split("\n\n", 1)[1]


def test_make_key_needs_no_installed_packages(tmp_path: Path) -> None:
    """Any Python can run it, without the project and its dependencies."""
    script = ROOT / "scripts" / "make_key.py"
    done = run(sys.executable, "-I", "-S", script, "alice", cwd=tmp_path)
    assert done.stdout.startswith("alice:sha256:")


def test_an_interrupt_during_imports_prints_one_line(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'app.config': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from app.cli.main import run\n"
        "sys.exit(run('reindex', []))\n"
    )
    done = run(sys.executable, "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "Interrupted before the command began\n")


def pinned(lock: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): release for name, release in found}


def assert_met(requirements: list[str], locks: dict[str, str]) -> None:
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate():
            release = locks[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(release), requirement


def test_the_lock_files_meet_all_requirements() -> None:
    """These are its dependencies, its build requirements and, for the tests, those of its extra."""
    runtime, development = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert_met(PROJECT["project"]["dependencies"], runtime)
    assert_met(PROJECT["build-system"]["requires"], runtime)
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]
    extra = PROJECT["project"]["optional-dependencies"]["tracing"]
    assert_met(extra, development)
    assert set(extra) <= set(PROJECT["dependency-groups"]["dev"])


def test_the_error_names_the_packages_of_the_extra() -> None:
    """It is raised if a collector is set without them."""
    provided = metadata("rag-service").get_all("Provides-Extra")
    assert provided == ["tracing"]
    extra = map(Requirement, PROJECT["project"]["optional-dependencies"]["tracing"])
    assert set(tracing._HOW.split("install ")[1].split()) == {each.name for each in extra}
