"""Put together the client of the model provider and its embedding model."""

from __future__ import annotations

from app.config.choices import EmbeddingProvider
from app.config.settings import Settings
from app.embeddings.openai_batches import OpenAIBatches
from app.indexing.vectors import Embedder
from app.provider.client import OPENAI_URL, Endpoint, ProviderClient
from app.provider.observer import UNOBSERVED, ProviderObserver
from app.provider.retry import ONLINE, RetryPolicy, offline
from app.storage.disk.embedding_cache import cache_scope

# US dollars for a million tokens, as OpenAI lists them.
_OPENAI_PRICES = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}


def make_provider(settings: Settings, observer: ProviderObserver = UNOBSERVED) -> ProviderClient:
    """Make the client of the model provider, which connects with the first request."""
    return ProviderClient(settings.provider.base_url, settings.provider.api_key_or_placeholder, observer)


def make_embedding_model(
    settings: Settings, provider: ProviderClient, retry_policy: RetryPolicy = ONLINE
) -> OpenAIBatches:
    """Make the provider's embedding model."""
    endpoint = Endpoint(provider, "embeddings", "the embedding model", retry_policy)
    return OpenAIBatches(endpoint, settings.embedding.model)


def make_embedder(settings: Settings) -> Embedder:
    """Make the embedder of a reindex, with its own client: it runs in a thread beside the event loop."""
    retry_policy = offline(attempt_s=settings.limits.request_timeout_s, retry_s=settings.embedding.retry_s)
    base_url = settings.provider.base_url or OPENAI_URL
    price = settings.embedding.price
    if price is None and settings.provider.base_url is None:
        price = _OPENAI_PRICES.get(settings.embedding.model)
    return Embedder(
        model=make_embedding_model(settings, make_provider(settings), retry_policy),
        scope=cache_scope(EmbeddingProvider.OPENAI, settings.embedding.model, base_url),
        batch_size=settings.embedding.batch_size,
        concurrency=settings.embedding.concurrency,
        price=price,
        cache_bytes=settings.embedding.cache_mb * 1024 * 1024,
    )
