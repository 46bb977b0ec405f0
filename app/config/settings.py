"""The settings: from the environment or `.env`, checked once, at the start."""

from __future__ import annotations

import os
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.config.validators import (
    checked_api_keys,
    checked_collector_address,
    checked_database_address,
    checked_database_addresses,
    checked_networks,
    checked_origins,
    checked_rate_limit,
    checked_rate_limit_storage,
    checked_web_address,
)
from app.domain.chunk import ChunkUnit

# Local servers want none, and the client refuses to start without one.
PLACEHOLDER_API_KEY = "not-needed"


class LLMProvider(StrEnum):
    AUTO = "auto"
    OPENAI = "openai"
    EXTRACTIVE = "extractive"


class EmbeddingProvider(StrEnum):
    AUTO = "auto"
    OPENAI = "openai"
    LOCAL = "local"


class DegradedAnswers(StrEnum):
    NONE = "none"
    EXTRACTIVE = "extractive"


class WhenDown(StrEnum):
    ALLOW = "allow"
    REFUSE = "refuse"


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


Fraction = Annotated[float, Field(ge=0, le=1)]


# Of difflib's ratio: API_KEY is as near to API_KEYS as 0.93, DB_POOL_MIN to DB_POOL_MAX as 0.82.
_MISSPELT = 0.85


class SettingsError(Exception):
    """A setting is wrong; the text is one line that names it."""


_SOURCES = SettingsConfigDict(
    env_file=".env",
    env_ignore_empty=True,
    extra="ignore",
    frozen=True,
    case_sensitive=False,
    hide_input_in_errors=True,
)


class Settings(BaseSettings):
    """Names, defaults and bounds; README.md has the table with what each is for."""

    model_config = _SOURCES

    documents_dir: Path = Path("documents")
    index_dir: Path = Path("index_storage")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.CONSOLE
    log_questions: bool = False
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(checked_collector_address)] | None = None
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    request_timeout_s: Annotated[float, Field(gt=0)] = 60
    stream_idle_timeout_s: Annotated[float, Field(gt=0)] = 20
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30
    max_concurrency: Annotated[int, Field(ge=1)] = 256
    max_queue: Annotated[int, Field(ge=0)] = 1024

    api_keys: Annotated[SecretStr, AfterValidator(checked_api_keys)] | None = None
    api_keys_file: Path | None = None
    allow_anonymous: bool = False
    open_metrics: bool = False
    open_docs: bool = False
    rate_limit: Annotated[str | None, AfterValidator(checked_rate_limit)] = None
    rate_limit_storage: Annotated[SecretStr, AfterValidator(checked_rate_limit_storage)] = SecretStr(
        "memory://"
    )
    rate_limit_when_down: WhenDown = WhenDown.ALLOW
    trusted_proxies: Annotated[str, AfterValidator(checked_networks)] = ""
    cors_origins: Annotated[str, AfterValidator(checked_origins)] = ""

    openai_api_key: SecretStr | None = None
    openai_base_url: Annotated[str, AfterValidator(checked_web_address)] | None = None
    llm_provider: LLMProvider = LLMProvider.AUTO
    llm_model: str = "gpt-4o-mini"
    degraded_answers: DegradedAnswers = DegradedAnswers.NONE
    embedding_provider: EmbeddingProvider = EmbeddingProvider.AUTO
    embedding_model: str = "text-embedding-3-small"
    embedding_batch_size: Annotated[int, Field(ge=1, le=2048)] = 100
    embedding_concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    embedding_retry_s: Annotated[float, Field(ge=0)] = 300
    embedding_cache_mb: Annotated[int, Field(ge=0)] = 1024
    embedding_price: Annotated[float, Field(ge=0)] | None = None

    top_k: Annotated[int, Field(ge=1, le=50)] = 5
    min_score: Fraction = 0.15
    dense_weight: Fraction | None = None

    chunk_size: Annotated[int, Field(ge=50, le=20_000)] = 1000
    chunk_overlap: Annotated[int, Field(ge=0)] | None = None
    chunk_unit: ChunkUnit = ChunkUnit.CHARACTERS
    parse_timeout_s: Annotated[float, Field(gt=0)] = 120
    parse_memory_mb: Annotated[int, Field(ge=128)] = 1024
    max_inflated_mb: Annotated[int, Field(ge=1)] = 512
    parse_workers: Annotated[int, Field(ge=1, le=64)] = min(4, os.cpu_count() or 1)

    database_url: Annotated[SecretStr, AfterValidator(checked_database_address)] | None = None
    database_read_urls: Annotated[SecretStr, AfterValidator(checked_database_addresses)] | None = None
    db_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = "rag"
    db_pool_min: Annotated[int, Field(ge=0)] = 2
    db_pool_max: Annotated[int, Field(ge=1, le=1000)] = 10
    db_pool_timeout_s: Annotated[float, Field(gt=0)] = 2
    db_statement_timeout_s: Annotated[float, Field(gt=0)] = 10
    db_maintenance_mb: Annotated[int, Field(ge=16)] = 512
    hnsw_m: Annotated[int, Field(ge=4, le=100)] = 16
    hnsw_ef_construction: Annotated[int, Field(ge=8, le=1000)] = 64
    # Recall@10 at 100,000 chunks is 0.94 at 100, and 0.96 at 200 (benchmarks/README.md).
    hnsw_ef_search: Annotated[int, Field(ge=10, le=1000)] = 200

    index_poll_s: Annotated[float, Field(gt=0)] = 2
    keep_snapshots: Annotated[int, Field(ge=1)] = 3
    max_shrink: Fraction = 0.2
    scratch_dir: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.overlap >= self.chunk_size:
            raise ValueError(
                f"CHUNK_OVERLAP ({self.overlap}) must be less than CHUNK_SIZE ({self.chunk_size})"
            )
        if self.db_pool_min > self.db_pool_max:
            raise ValueError(
                f"DB_POOL_MIN ({self.db_pool_min}) must be at most DB_POOL_MAX ({self.db_pool_max})"
            )
        if self.database_read_urls is not None and self.database_url is None:
            raise ValueError("DATABASE_READ_URLS is set: set DATABASE_URL, too, to the primary")
        if self.rate_limit and self.workers > 1 and self._limits_in_memory:
            raise ValueError(
                f"RATE_LIMIT_STORAGE is memory://, of which each of the {self.workers} WORKERS would "
                "have its own: set it to a Redis, such as redis://localhost:6379"
            )
        if self.hnsw_ef_construction < 2 * self.hnsw_m:
            raise ValueError(
                f"HNSW_EF_CONSTRUCTION ({self.hnsw_ef_construction}) must be at least twice HNSW_M "
                f"({self.hnsw_m})"
            )
        needs_openai = {
            "LLM_PROVIDER": self.llm_provider is LLMProvider.OPENAI,
            "EMBEDDING_PROVIDER": self.embedding_provider is EmbeddingProvider.OPENAI,
        }
        for name, needed in needs_openai.items():
            if needed and not self._openai_is_set:
                raise ValueError(
                    f"{name} is openai: set OPENAI_API_KEY, or OPENAI_BASE_URL for a local server"
                )
        return self

    @property
    def overlap(self) -> int:
        """What neighbouring chunks may share: a tenth of their size, where nothing else is set."""
        return self.chunk_size // 10 if self.chunk_overlap is None else self.chunk_overlap

    @property
    def read_urls(self) -> list[SecretStr]:
        """Of the read replicas."""
        urls = self.database_read_urls.get_secret_value() if self.database_read_urls else ""
        return [SecretStr(url) for url in urls.split()]

    @property
    def _limits_in_memory(self) -> bool:
        return self.rate_limit_storage.get_secret_value().startswith("memory:")

    @property
    def _openai_is_set(self) -> bool:
        return self._api_key is not None or self.openai_base_url is not None

    @property
    def _api_key(self) -> str | None:
        """None also for one of spaces, which a template with nothing to fill in leaves."""
        key = self.openai_api_key.get_secret_value().strip() if self.openai_api_key else ""
        return key or None

    @property
    def uses_openai_llm(self) -> bool:
        return self.llm_provider is LLMProvider.OPENAI or (
            self.llm_provider is LLMProvider.AUTO and self._openai_is_set
        )

    @property
    def uses_openai_embeddings(self) -> bool:
        return self.embedding_provider is EmbeddingProvider.OPENAI or (
            self.embedding_provider is EmbeddingProvider.AUTO and self._openai_is_set
        )

    @property
    def api_key_or_placeholder(self) -> str:
        return self._api_key or PLACEHOLDER_API_KEY


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: one is wrong.
    """
    try:
        if (file := Settings.model_config["env_file"]) is not None:
            _check_names(Path(str(file)))
        return Settings()
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f".env: not in UTF-8 ({error.reason})") from None


def _check_names(path: Path) -> None:
    """A misspelt name would leave its setting at the default, such as the one without keys.

    Names of other programs may be in the file, too; in the environment there are many, and nobody looks.
    """
    if not path.is_file():
        return
    known = [name.upper() for name in Settings.model_fields]
    for name in dotenv_values(path):
        near = get_close_matches(name.upper(), known, n=1, cutoff=_MISSPELT)
        if near and name.upper() not in known and not name.upper().startswith("OTEL_"):
            raise SettingsError(f"{name}: there is no such setting; if {near[0]} is meant, rename it in .env")


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"]).upper()
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        return message
    # The value is shown to help find the line at fault, but a secret stays out of the log.
    shown = (
        ""
        if any(word in name for word in ("KEY", "URL", "STORAGE", "ENDPOINT"))
        else f" (it is {first['input']!r})"
    )
    return f"{name}: {message}{shown}"
