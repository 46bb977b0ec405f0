"""Settings of the documents, their chunks and the index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from app.config.groups.group import SettingsGroup
from app.domain.chunk import ChunkUnit


class DocumentSettings(SettingsGroup, title="Documents"):
    """The folder of the documents, and the limits within which a file is read."""

    dir: Path = Field(
        default=Path("documents"),
        alias="documents_dir",
        description="Folder of the documents. Its subfolders are read, too.",
    )
    parse_workers: int = Field(
        default_factory=lambda: min(4, os.cpu_count() or 1),
        ge=1,
        le=64,
        description="Number of reader processes. By default as many as processors, at most 4.",
    )
    parse_timeout_s: float = Field(
        default=120,
        gt=0,
        description="Seconds in which a file must be read. The reader process is killed after that.",
    )
    parse_memory_mb: int = Field(
        default=1024,
        ge=128,
        description="Memory in MB that reading a file may use. The limit works on Linux only.",
    )
    max_inflated_mb: int = Field(
        default=512,
        ge=1,
        description="Largest size in MB of a file, and of the content of a compressed file, which Office "
        "files are, too. The text extracted from it may have an eighth of that.",
    )


class ChunkingSettings(SettingsGroup, title="Chunks"):
    """The size of the chunks. A change takes effect with a reindex, which then reads all documents again."""

    size: int = Field(
        default=1000,
        alias="chunk_size",
        ge=50,
        le=20_000,
        description="Largest size of a chunk, in `CHUNK_UNIT`. The header of a table is repeated on top of "
        "it.",
    )
    overlap: int = Field(
        default_factory=lambda values: int(values["size"]) // 10,
        alias="chunk_overlap",
        ge=0,
        description="Text that a chunk may share with the chunk before it, in `CHUNK_UNIT`. By default a "
        "tenth of `CHUNK_SIZE`; it must be less than `CHUNK_SIZE`.",
    )
    unit: ChunkUnit = Field(
        default=ChunkUnit.CHARACTERS,
        alias="chunk_unit",
        description="Unit of both sizes. Tokens are counted by the bundled tokenizer.",
    )

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError(
                f"CHUNK_OVERLAP ({self.overlap}) must be less than CHUNK_SIZE ({self.size})",
            )
        return self


class IndexSettings(SettingsGroup, title="Index"):
    """The folder of the index, and how a new index replaces it. The last three hold for PostgreSQL, too."""

    dir: Path = Field(
        default=Path("index_storage"),
        alias="index_dir",
        description="Folder of the index and of the cache of embeddings.",
    )
    scratch_dir: Path | None = Field(
        default=None,
        description="Folder to which a server copies an index that it may not write to, in order to load "
        "it. By default the system's temporary folder.",
    )
    poll_s: float = Field(
        default=2,
        alias="index_poll_s",
        gt=0,
        description="Seconds between two looks for a new index, in each server.",
    )
    keep_snapshots: int = Field(
        default=3,
        ge=1,
        description="Number of indexes that are kept for a rollback, including the served one.",
    )
    max_shrink: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the indexed documents that a reindex may lose. A run that would lose more "
        "stops, because a folder that is not mounted looks like that.",
    )
