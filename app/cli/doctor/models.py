"""Check the model provider by asking for one tiny embedding and one tiny answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.bootstrap.models import make_embedding_model, make_provider
from app.cli.doctor.finding import Finding, fail, ok, warn
from app.config.settings import Settings
from app.domain.deadline import start_deadline
from app.domain.errors import ModelTimeout, RagError
from app.provider.client import Endpoint, ProviderClient
from app.provider.failures import ProviderFailure
from app.provider.retry import RetryPolicy

TIMEOUT_S = 10.0

_ONCE = RetryPolicy(retries=0)
_MAX_BYTES = 1024 * 1024


def check_models(settings: Settings) -> list[Finding]:
    """Check the embedding model and the chat model, as far as they are the provider's."""
    return asyncio.run(_check_models(settings))


async def _check_models(settings: Settings) -> list[Finding]:
    return [
        await _try(settings, "embedding", settings.uses_openai_embeddings, _embed),
        await _try(settings, "chat", settings.uses_openai_llm, _chat),
    ]


async def _try(
    settings: Settings,
    check: str,
    uses_provider: bool,
    ask: Callable[[Settings, ProviderClient], Awaitable[str]],
) -> Finding:
    if not uses_provider:
        bundled = "the bundled model" if check == "embedding" else "answers are quoted from the documents"
        return ok(check, f"{bundled}: no provider is asked")
    provider = make_provider(settings)
    name = settings.embedding.model if check == "embedding" else settings.llm.model
    try:
        start_deadline(TIMEOUT_S)
        return ok(check, f"{name} {await ask(settings, provider)}")
    except RagError as error:
        return _finding(check, error, name)
    finally:
        await provider.close()


async def _embed(settings: Settings, provider: ProviderClient) -> str:
    answer = await make_embedding_model(settings, provider, _ONCE).ask(["ok"])
    return f"answers with {answer.vectors.shape[1]} dimensions"


async def _chat(settings: Settings, provider: ProviderClient) -> str:
    # The service's own chat model takes two seconds to import. There is no token limit: its parameter has
    # different names, and a reasoning model could use it up before it answers.
    body = {"model": settings.llm.model, "messages": [{"role": "user", "content": "Say ok."}]}
    endpoint = Endpoint(provider, "chat/completions", "the language model", _ONCE)
    await endpoint.post(body, lambda answer: answer["choices"][0]["message"], max_bytes=_MAX_BYTES)
    return "answers"


def _finding(check: str, error: RagError, name: str) -> Finding:
    """Describe a failure by its kind; the provider's own message may contain a part of the key."""
    failure = error.__cause__
    status = failure.status if isinstance(failure, ProviderFailure) else None
    setting = "EMBEDDING_MODEL" if check == "embedding" else "LLM_MODEL"
    if status == 429:
        return warn(
            check, "the provider's limit or credit is used up (429)", "check both the limits and the credit"
        )
    match status:
        case 401 | 403:
            text, advice = f"the provider rejects the API key ({status})", "set OPENAI_API_KEY"
        case 404:
            text = f"the provider has no model {name}, or is not at OPENAI_BASE_URL (404)"
            advice = f"correct {setting} or OPENAI_BASE_URL"
        case 400 | 422:
            text = f"the provider rejects a request for {name} ({status})"
            advice = f"check that {setting} is a model of the right kind"
        case None if isinstance(error, ModelTimeout):
            text = f"the provider did not answer within {TIMEOUT_S:g} s"
            advice = "check that it is up, and that OPENAI_BASE_URL is right"
        case None:
            text, advice = error.detail, "check OPENAI_BASE_URL and the network"
        case _:
            text, advice = (
                f"the provider answers with status {status}",
                "check the provider's state, and try again later",
            )
    return fail(check, text, advice)
