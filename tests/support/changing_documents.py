"""A folder of changing documents, whose texts are known without reading it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


class ChangingDocuments:
    """A folder of documents; changes of a document that does not exist do nothing.

    Attributes:
        texts: the text of each document by its name; None for a broken link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts: dict[str, str | None] = {}
        folder.mkdir(parents=True)

    def hashes(self) -> dict[str, str | None]:
        return {
            name: None if text is None else hashlib.sha256(text.encode()).hexdigest()
            for name, text in self.texts.items()
        }

    def write(self, name: str, text: str | None) -> None:
        """Add or replace a document."""
        self.remove(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.symlink_to("nowhere")
        else:
            path.write_text(text)
        self.texts[name] = text

    def remove(self, name: str) -> None:
        if name in self.texts:
            (self.folder / name).unlink()
            del self.texts[name]

    def rename(self, name: str, to: str) -> None:
        """Rename a document, replacing an existing one of that name."""
        if name in self.texts:
            (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).replace(self.folder / to)
            self.texts[to] = self.texts.pop(name)

    def copy(self, name: str, to: str) -> None:
        if name in self.texts:
            self.write(to, self.texts[name])

    def touch(self, name: str) -> None:
        if self.texts.get(name) is not None:
            os.utime(self.folder / name, (1, 1))
