"""`docs/settings.md` and `.env.example` say what the fields of the settings say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.config.settings import FIELDS, GROUPS, Settings
from scripts.make_settings_docs import FILES, env_example, settings_page
from tests.support.serving import ROOT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_current(path: Path) -> None:
    """To make it so, run `python -m scripts.make_settings_docs`."""
    assert path.read_text(encoding="utf-8") == FILES[path]()


def test_the_check_option_succeeds() -> None:
    subprocess.run([sys.executable, "-m", "scripts.make_settings_docs", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described(name: str) -> None:
    """A description consists of whole sentences, and names only settings that exist."""
    description = FIELDS[name].description or ""
    assert re.fullmatch(r"[A-Z].*\.", description)
    named = {word.lower() for word in re.findall(r"`([A-Z][A-Z_]{2,})`", description)}
    assert named <= FIELDS.keys() | {"key"}  # a placeholder


def test_every_setting_has_a_row() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", settings_page(), re.MULTILINE)
    assert rows == [name.upper() for name in FIELDS]
    sections = re.findall(r"^## (.+)$", settings_page(), re.MULTILINE)
    assert sections == [group.model_config["title"] for group in GROUPS.values()]


def test_the_values_in_the_example_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing every `#` in front of a name changes nothing."""
    values = re.sub(r"^#(?=[A-Z_]+=)", "", env_example(), flags=re.MULTILINE)
    assert len(re.findall(r"^[A-Z_]+=", values, re.MULTILINE)) == len(FIELDS)
    (tmp_path / ".env").write_text(values)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    assert Settings() == Settings(_env_file=None)
