"""The settings as a whole: read from the environment or `.env`, and checked once, at the start."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.config.choices import EmbeddingProvider, LLMProvider
from app.config.groups.access import AccessSettings
from app.config.groups.content import ChunkingSettings, DocumentSettings, IndexSettings
from app.config.groups.database import DatabaseSettings
from app.config.groups.group import SettingsGroup
from app.config.groups.models import EmbeddingSettings, LLMSettings, ProviderSettings, RetrievalSettings
from app.config.groups.serving import LimitSettings, ObservabilitySettings, ServerSettings
from app.config.secrets import may_be_shown

# A similarity by difflib: API_KEY and API_KEYS have 0.93, DB_POOL_MIN and DB_POOL_MAX 0.82.
_MISSPELT = 0.85


class SettingsError(Exception):
    """A setting is wrong; the text is one line that names it."""


class Settings(BaseSettings):
    """All settings in groups. Names in the environment have no group: `settings.index.dir` is `INDEX_DIR`.

    Args:
        values: settings by their names in the environment, in lower case, such as `index_dir`; or groups as
            `model_dump` returns them.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        case_sensitive=False,
        hide_input_in_errors=True,
    )

    documents: DocumentSettings
    chunking: ChunkingSettings
    index: IndexSettings
    database: DatabaseSettings
    provider: ProviderSettings
    llm: LLMSettings
    embedding: EmbeddingSettings
    retrieval: RetrievalSettings
    server: ServerSettings
    access: AccessSettings
    limits: LimitSettings
    observability: ObservabilitySettings

    # Type checkers would otherwise require every group as an argument.
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the values of the constructor, the environment and `.env`: the first that has one counts.

        They are grouped here because pydantic-settings finds a nested setting only by a name that has the
        group's name in front.
        """
        no_values: dict[str, Any] = {group: {} for group in GROUPS}
        sources = (init_settings(), _set_in(env_settings), _set_in(dotenv_settings), no_values)
        return tuple(InitSettingsSource(settings_cls, _grouped(values)) for values in sources)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        in_memory = self.access.rate_limit_storage.get_secret_value().startswith("memory:")
        if self.access.rate_limit and self.server.workers > 1 and in_memory:
            raise ValueError(
                f"RATE_LIMIT_STORAGE is memory://, which the {self.server.workers} WORKERS do not share: "
                "set it to a Redis, such as redis://localhost:6379"
            )
        needs_openai = {
            "LLM_PROVIDER": self.llm.provider is LLMProvider.OPENAI,
            "EMBEDDING_PROVIDER": self.embedding.provider is EmbeddingProvider.OPENAI,
        }
        for name, needed in needs_openai.items():
            if needed and not self.provider.is_set:
                raise ValueError(
                    f"{name} is openai: set OPENAI_API_KEY, or OPENAI_BASE_URL for a local server"
                )
        return self

    @property
    def uses_openai_llm(self) -> bool:
        return self.llm.provider is LLMProvider.OPENAI or (
            self.llm.provider is LLMProvider.AUTO and self.provider.is_set
        )

    @property
    def uses_openai_embeddings(self) -> bool:
        return self.embedding.provider is EmbeddingProvider.OPENAI or (
            self.embedding.provider is EmbeddingProvider.AUTO and self.provider.is_set
        )


GROUPS: dict[str, type[SettingsGroup]] = {
    name: group
    for name, field in Settings.model_fields.items()
    if isinstance(group := field.annotation, type) and issubclass(group, SettingsGroup)
}
# By the settings' names in the environment, in lower case.
FIELDS: dict[str, FieldInfo] = {
    name: field for group in GROUPS.values() for name, field in group.fields_by_setting().items()
}
_GROUP_OF = {name: group for group, model in GROUPS.items() for name in model.fields_by_setting()}


def _grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sort settings into their groups; other names are left for pydantic to reject."""
    sorted_in = {name: value for name, value in values.items() if name not in _GROUP_OF}
    for name, value in values.items():
        if group := _GROUP_OF.get(name):
            sorted_in[group] = sorted_in.get(group, {}) | {name: value}
    return sorted_in


def _set_in(source: PydanticBaseSettingsSource) -> dict[str, Any]:
    """Return what the environment or `.env` sets; both may have names for other programs."""
    assert isinstance(source, EnvSettingsSource)  # noqa: S101 - the source of .env is a subclass
    return {name: value for name, value in source.env_vars.items() if name in FIELDS}


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: a setting is invalid.
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
    """Reject a misspelt name in `.env`, which would leave its setting at the default, such as no keys at all.

    Names for other programs are allowed. The environment has too many of them to be checked.
    """
    if not path.is_file():
        return
    known = [name.upper() for name in FIELDS]
    for name in dotenv_values(path):
        near = get_close_matches(name.upper(), known, n=1, cutoff=_MISSPELT)
        if near and name.upper() not in known and not name.upper().startswith("OTEL_"):
            raise SettingsError(f"{name}: there is no such setting; if {near[0]} is meant, rename it in .env")


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    # A location consists of group and setting; a message about several settings has none, but names them.
    setting = next((part for part in first["loc"] if part in FIELDS), None)
    if setting is None:
        return message
    # The value is shown to help find the line at fault.
    shown = f" (it is {first['input']!r})" if may_be_shown(FIELDS[str(setting)]) else ""
    return f"{str(setting).upper()}: {message}{shown}"
