"""Settings of the language model, the embedding model and the retrieval."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from app.config.choices import DegradedAnswers, EmbeddingProvider, LLMProvider
from app.config.groups.group import SettingsGroup
from app.config.secrets import MAY_HOLD_PASSWORD
from app.config.validators import checked_web_address

# A compatible server without keys accepts any; the client always sends one.
PLACEHOLDER_API_KEY = "not-needed"


class ProviderSettings(SettingsGroup, title="Model provider"):
    """The provider of models. Either setting turns both models of the provider on."""

    api_key: SecretStr | None = Field(
        default=None,
        alias="openai_api_key",
        description="API key of OpenAI, or of the server at `OPENAI_BASE_URL`.",
    )
    base_url: Annotated[str, AfterValidator(checked_web_address), MAY_HOLD_PASSWORD] | None = Field(
        default=None,
        alias="openai_base_url",
        description="Address of a server that is compatible with the OpenAI API, such as vLLM, Ollama or "
        "llama.cpp: `http://localhost:11434/v1`. It needs no API key.",
    )

    @property
    def is_set(self) -> bool:
        return self._key is not None or self.base_url is not None

    @property
    def api_key_or_placeholder(self) -> str:
        return self._key or PLACEHOLDER_API_KEY

    @property
    def _key(self) -> str | None:
        """The key, if it is more than blanks, which a template leaves that has nothing to fill in."""
        key = self.api_key.get_secret_value().strip() if self.api_key else ""
        return key or None


class LLMSettings(SettingsGroup, title="Language model"):
    """The model that writes the answers."""

    provider: LLMProvider = Field(
        default=LLMProvider.AUTO,
        alias="llm_provider",
        description="Source of the answers. `openai` is the provider's language model; `extractive` quotes "
        "the passages without one; `auto` is `openai` if `OPENAI_API_KEY` or `OPENAI_BASE_URL` is set, and "
        "otherwise `extractive`.",
    )
    model: str = Field(
        default="gpt-4o-mini",
        alias="llm_model",
        description="Name of the provider's language model.",
    )
    degraded_answers: DegradedAnswers = Field(
        default=DegradedAnswers.NONE,
        description="Answers while the language model fails. `extractive` quotes the passages; `none` is an "
        "error.",
    )


class EmbeddingSettings(SettingsGroup, title="Embeddings"):
    """The model that embeds chunks and questions, and how it is used. Another model needs a reindex."""

    provider: EmbeddingProvider = Field(
        default=EmbeddingProvider.AUTO,
        alias="embedding_provider",
        description="Source of the embeddings. `openai` is the provider's embedding model; `local` is the "
        "bundled one; `auto` is `openai` if `OPENAI_API_KEY` or `OPENAI_BASE_URL` is set, and otherwise "
        "`local`.",
    )
    model: str = Field(
        default="text-embedding-3-small",
        alias="embedding_model",
        description="Name of the provider's embedding model. The bundled model does not depend on it.",
    )
    batch_size: int = Field(
        default=100,
        alias="embedding_batch_size",
        ge=1,
        le=2048,
        description="Number of chunks in an embedding request.",
    )
    concurrency: int = Field(
        default=4,
        alias="embedding_concurrency",
        ge=1,
        le=64,
        description="Number of embedding requests at the same time while an index is built.",
    )
    retry_s: float = Field(
        default=300,
        alias="embedding_retry_s",
        ge=0,
        description="Seconds for which a batch of chunks that failed is tried again while an index is built.",
    )
    cache_mb: int = Field(
        default=1024,
        alias="embedding_cache_mb",
        ge=0,
        description="Largest size in MB of the cache of the provider's vectors after a reindex; 0 keeps "
        "none. The cache is `embeddings.sqlite` in `INDEX_DIR`, or a table of the database.",
    )
    price: float | None = Field(
        default=None,
        alias="embedding_price",
        ge=0,
        description="Price of a million tokens in US dollars, from which the cost of a reindex is "
        "estimated. By default OpenAI's price of the model, if it is known.",
    )


class RetrievalSettings(SettingsGroup, title="Retrieval"):
    """The choice of the passages for a question."""

    top_k: int = Field(
        default=5,
        ge=1,
        le=50,
        description="Number of passages, if a request does not say how many it wants.",
    )
    min_score: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Lowest score of the best passage. Below it, the answer is that nothing was found, and "
        "no language model is asked.",
    )
    dense_weight: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the embeddings in a score; BM25 has the rest. By default 0.3 with the bundled "
        "model and 0.5 with a provider's.",
    )
