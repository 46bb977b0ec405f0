"""Settings that have a fixed set of values."""

from __future__ import annotations

from enum import StrEnum


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
