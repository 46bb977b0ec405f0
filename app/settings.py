"""The settings: from the environment or `.env`, checked once, at the start."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.chunk_unit import ChunkUnit

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


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address such as http://localhost:11434/v1")
    if parts.username or parts.password:
        raise ValueError("must not hold a password; a key goes into OPENAI_API_KEY")
    return value


Fraction = Annotated[float, Field(ge=0, le=1)]


class SettingsError(Exception):
    """A setting is wrong; the text is one line that names it."""


_SOURCES = SettingsConfigDict(
    env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, case_sensitive=False
)


class NotSupportedYet(BaseSettings):
    """Of the service's contract, but not built yet. One that would do nothing must not look as if it did."""

    model_config = _SOURCES

    api_keys: SecretStr | None = None
    cors_origins: SecretStr | None = None
    database_url: SecretStr | None = None
    log_format: SecretStr | None = None
    rate_limit: SecretStr | None = None


class Settings(BaseSettings):
    """Names, defaults and bounds; README.md has the table with what each is for."""

    model_config = _SOURCES

    documents_dir: Path = Path("documents")
    index_dir: Path = Path("index_storage")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    log_level: LogLevel = LogLevel.INFO
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    request_timeout_s: Annotated[float, Field(gt=0)] = 60
    stream_idle_timeout_s: Annotated[float, Field(gt=0)] = 20
    max_concurrency: Annotated[int, Field(ge=1)] = 256
    max_queue: Annotated[int, Field(ge=0)] = 1024

    openai_api_key: SecretStr | None = None
    openai_base_url: Annotated[str, AfterValidator(_web_address)] | None = None
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
        SettingsError: one is wrong, or names what this version cannot do yet.
    """
    try:
        settings, unsupported = Settings(), NotSupportedYet()
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f".env: not in UTF-8 ({error.reason})") from None
    for name, value in unsupported:
        if value is not None:
            raise SettingsError(f"{name.upper()}: this version does not support it yet; unset it to start")
    return settings


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"]).upper()
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        return message
    # The value is shown to help find the line at fault, but a secret stays out of the log.
    shown = "" if "KEY" in name or "URL" in name else f" (it is {first['input']!r})"
    return f"{name}: {message}{shown}"
