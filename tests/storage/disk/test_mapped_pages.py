"""Memory of mapped files is given back, and nothing that was written into it is lost."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from app.storage.disk.mapped_pages import release_mapped_pages

_BYTES = 1024 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is given back elsewhere")


def mapped(path: Path, flags: int) -> mmap.mmap:
    """A file whose every page has been written to through the mapping."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(_BYTES))
    with path.open("r+b") as file:
        made = mmap.mmap(file.fileno(), _BYTES, flags=flags)
    made[:] = b"x" * _BYTES
    return made


def resident(path: Path) -> int:
    """In kB: how much of the file this process has in its memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(f" {path}"):
            return next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    raise AssertionError(f"{path} is not mapped")


def test_releasing_mapped_pages_loses_no_content(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "engine file"
    content = mapped(path, mmap.MAP_SHARED)
    assert resident(path) == _BYTES // 1024
    release_mapped_pages(path.parent)
    assert resident(path) == 0
    assert content[:] == b"x" * _BYTES
    assert path.read_bytes() == b"x" * _BYTES


@pytest.mark.parametrize(
    ("name", "flags"), [("folders/file", mmap.MAP_SHARED), ("folder/file", mmap.MAP_PRIVATE)]
)
def test_other_pages_are_not_released(tmp_path: Path, name: str, flags: int) -> None:
    """These are pages of other folders, and private ones, whose content is only in memory."""
    content = mapped(tmp_path / name, flags)
    release_mapped_pages(tmp_path / "folder")
    assert resident(tmp_path / name) == _BYTES // 1024
    assert content[:] == b"x" * _BYTES


def test_nothing_is_released_without_a_list_of_mappings(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    content = mapped(path, mmap.MAP_SHARED)
    release_mapped_pages(path.parent, maps=tmp_path / "none")
    assert resident(path) == len(content) // 1024
