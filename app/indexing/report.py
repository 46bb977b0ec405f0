"""The report of a run, or of what one would do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.domain.document import Document, DocumentStatus
from app.indexing.changes import Changes

# Names of one kind in the text; JSON has them all.
_SHOWN = 20


@dataclass(frozen=True)
class Report:
    """All that a run did, or would do.

    Attributes:
        index: the index that is served after the run; None where there is none yet.
        planned: nothing was written: the other figures say what would be done.
        published: the run made this index; else the previous one stayed, since nothing has changed.
        chunks: in the whole index.
        embedded: texts that were sent to the embedding model, each once; chunks of the same text share a
            vector, and known texts keep theirs.
        tokens: of these, about; None where they cost nothing and were not counted.
        cost: of these, about, in US dollars; None where no price is known.
        refused: why the run that is planned would stop, as things are.
    """

    index: str | None
    planned: bool
    published: bool
    changes: Changes
    documents: list[Document]
    chunks: int
    embedded: int
    tokens: int | None
    cost: float | None
    seconds: float
    refused: str | None = None

    @property
    def failed(self) -> list[Document]:
        return [record for record in self.documents if record.status is not DocumentStatus.INDEXED]

    def as_json(self) -> str:
        """Return a JSON object, for programs."""
        changes = self.changes
        fields: dict[str, Any] = {
            "index": self.index,
            "planned": self.planned,
            "published": self.published,
            "documents": len(self.documents) - len(self.failed),
            "chunks": self.chunks,
            "added": changes.added,
            "changed": changes.changed,
            "renamed": [{"from": old, "to": new} for old, new in changes.renamed],
            "removed": changes.removed,
            "unread": [_failed_as_json(record) for record in self.failed],
            "embedded": self.embedded,
            "tokens": self.tokens,
            "cost_usd": None if self.cost is None else round(self.cost, 6),
            "seconds": round(self.seconds, 3),
            "refused": self.refused,
        }
        return json.dumps(fields)

    def as_text(self) -> str:
        """Return a few lines, for people."""
        lines = [self._headline(), *self._change_lines(), *self._failed_lines()]
        if self.planned or self.published:
            lines.append(self._embedded_line())
        if self.refused is not None:
            lines.append(f"It would be refused: {self.refused}")
        return "\n".join(lines)

    def _headline(self) -> str:
        size = f"{len(self.documents) - len(self.failed):,} documents, {self.chunks:,} chunks"
        if self.planned:
            return f"Plan: {size}; nothing was written ({self.seconds:.1f} s)"
        if not self.published:
            return f"Nothing has changed: index {self.index} stays, {size} ({self.seconds:.1f} s)"
        return f"Index {self.index}: {size} ({self.seconds:.1f} s)"

    def _change_lines(self) -> list[str]:
        changes = self.changes
        kinds = {
            "added": changes.added,
            "changed": changes.changed,
            "renamed": [f"{old} -> {new}" for old, new in changes.renamed],
            "removed": changes.removed,
        }
        return [
            line
            for kind, names in kinds.items()
            if names
            for line in _listed(f"{len(names):,} {kind}", names)
        ]

    def _failed_lines(self) -> list[str]:
        failed = [f"{record.name}: {record.problem} ({record.status})" for record in self.failed]
        return _listed(f"{len(failed):,} could not be read", failed) if failed else []

    def _embedded_line(self) -> str:
        verb = "would be embedded" if self.planned else "embedded"
        line = f"{self.embedded:,} texts {verb}"
        if self.tokens:
            line += f", about {self.tokens:,} tokens"
        if self.cost is not None:
            line += f", about ${self.cost:,.4f}"
        return line


def _failed_as_json(document: Document) -> dict[str, Any]:
    return {
        "name": document.name,
        "sha256": document.sha256,
        "size": document.size,
        "pages": document.pages,
        "chunks": document.chunks,
        "status": document.status.value,
        "problem": document.problem,
    }


def _listed(title: str, names: list[str]) -> list[str]:
    lines = [f"{title}:", *(f"  {name}" for name in names[:_SHOWN])]
    if len(names) > _SHOWN:
        lines.append(f"  and {len(names) - _SHOWN:,} more; --json lists all")
    return lines
