"""The OpenAI API: the service as a model."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Response

from app.domain.answer import Answer, Passage
from app.domain.errors import ModelNotFound, RagError
from app.http.openai_errors import openai_error_json
from app.http.openai_schemas import (
    MODEL_ID,
    Annotation,
    ChatChoice,
    ChatCompletion,
    ChatMessageOut,
    ChatRequest,
    ChatUsage,
    ModelInfo,
    ModelList,
    UrlCitation,
)
from app.http.routes.dependencies import EngineDep, openai_errors
from app.http.schemas import citations_of
from app.http.sse import DONE, EventStream, event
from app.observability.logging import request_id
from app.query.events import Answered, Found, Part

router = APIRouter(prefix="/v1", tags=["openai"], responses=openai_errors(401, 500))

_MARKER = re.compile(r"\[(\d{1,4})\]")
# Of the one model, which is as old as the process.
_CREATED = int(time.time())


@router.get("/models", summary="List the models: there is one")
async def models() -> ModelList:
    return ModelList(data=[ModelInfo(created=_CREATED)])


@router.get("/models/{model}", summary="Describe a model", responses=openai_errors(404))
async def model(model: str) -> ModelInfo:
    _check_model(model)
    return ModelInfo(created=_CREATED)


@router.post(
    "/chat/completions",
    summary="Answer a chat's last question",
    response_model=ChatCompletion,
    responses={
        200: {"description": "The answer, or its chunks", "content": {EventStream.media_type: {}}},
        **openai_errors(400, 404, 413, 429, 502, 503, 504),
    },
)
async def chat_completions(request: ChatRequest, engine: EngineDep) -> Response:
    """The last user message is the question; a model, where one is set, sees it with what came before."""
    _check_model(request.model)
    question = request.to_domain()
    if not request.stream:
        answer = await engine.answer(question)
        return Response(_completion(answer).model_dump_json(), media_type="application/json")
    parts = engine.stream(question)
    found = await anext(parts)
    return EventStream(_events(request, found, parts), _error_event)


def _check_model(name: str) -> None:
    if name != MODEL_ID:
        raise ModelNotFound(f"the model {name!r} does not exist; this service has one: {MODEL_ID!r}")


def _completion(answer: Answer) -> ChatCompletion:
    message = ChatMessageOut(content=answer.text, annotations=_annotations(answer.text, answer.passages))
    return ChatCompletion(
        id=_new_id(),
        created=int(time.time()),
        model=MODEL_ID,
        choices=[ChatChoice(message=message, finish_reason=answer.finish_reason)],
        usage=ChatUsage.of(answer.usage),
        system_fingerprint=answer.model,
        citations=citations_of(answer.passages),
    )


def _annotations(text: str, passages: Sequence[Passage]) -> list[Annotation]:
    by_marker = {passage.marker: passage for passage in passages}
    return [
        Annotation(
            url_citation=UrlCitation(
                start_index=match.start(),
                end_index=match.end(),
                title=by_marker[int(match[1])].document,
                url=_url(by_marker[int(match[1])]),
            )
        )
        for match in _MARKER.finditer(text)
        if int(match[1]) in by_marker
    ]


def _url(passage: Passage) -> str:
    return quote(passage.document) + ("" if passage.page is None else f"#page={passage.page}")


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


async def _events(request: ChatRequest, found: Part, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
    head: dict[str, Any] = {
        "id": _new_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": MODEL_ID,
    }
    # As OpenAI does: null in each chunk but the last, where it was asked for.
    usage = {"usage": None} if request.includes_usage else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(orjson.dumps({**head, "choices": [choice], **usage, **extra}))

    async with aclosing(parts):
        assert isinstance(found, Found)  # noqa: S101 - the engine's order
        yield chunk({"role": "assistant", "content": ""}, citations=citations_of(found.passages))
        async for part in parts:
            if isinstance(part, str):
                yield chunk({"content": part})
            elif isinstance(part, Answered):
                annotations = _annotations(part.answer.text, found.passages)
                yield chunk(
                    {"annotations": [each.model_dump() for each in annotations]},
                    part.answer.finish_reason,
                    system_fingerprint=part.answer.model,
                )
                if request.includes_usage:
                    total = ChatUsage.of(part.answer.usage).model_dump()
                    yield event(orjson.dumps({**head, "choices": [], "usage": total}))
        yield DONE


def _error_event(error: RagError) -> bytes:
    return event(openai_error_json(error, None, request_id.get()))
