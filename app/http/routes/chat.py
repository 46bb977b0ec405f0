"""The OpenAI API: the service as a model."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Response

from app.domain.answer import Citation
from app.domain.errors import ModelNotFound, RagError
from app.domain.query import QueryRequest
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
from app.http.sse import DONE, EventStream, event
from app.observability.logging import request_id
from app.query.events import Answered, Found, Part
from app.query.synthesis.contract import Conversation, Turn

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
    question, conversation = _question(request), _conversation(request)
    if not request.stream:
        answered = await engine.answer(question, conversation)
        return Response(_completion(answered).model_dump_json(), media_type="application/json")
    parts = engine.stream(question, conversation)
    found = await anext(parts)
    return EventStream(_events(request, found, parts), _error_event)


def _check_model(name: str) -> None:
    if name != MODEL_ID:
        raise ModelNotFound(f"the model {name!r} does not exist; this service has one: {MODEL_ID!r}")


def _last_user_message(request: ChatRequest) -> int:
    return max(place for place, message in enumerate(request.messages) if message.role == "user")


def _question(request: ChatRequest) -> QueryRequest:
    text = request.messages[_last_user_message(request)].text
    return QueryRequest(query=text, top_k=request.top_k, filters=request.filters)


def _conversation(request: ChatRequest) -> Conversation:
    before = request.messages[: _last_user_message(request)]
    instructions = [message.text for message in request.messages if message.role in {"system", "developer"}]
    return Conversation(
        history=tuple(
            Turn(message.role, message.text)
            for message in before
            if message.role in {"user", "assistant"} and message.text
        ),
        instructions="\n".join(instructions).strip(),
        options=request.options,
    )


def _completion(answered: Answered) -> ChatCompletion:
    response = answered.response
    message = ChatMessageOut(
        content=response.answer, annotations=_annotations(response.answer, response.citations)
    )
    return ChatCompletion(
        id=_new_id(),
        created=int(time.time()),
        model=MODEL_ID,
        choices=[ChatChoice(message=message, finish_reason=answered.finish_reason)],
        usage=ChatUsage.of(response.usage),
        system_fingerprint=response.model,
        citations=response.citations,
    )


def _annotations(answer: str, citations: list[Citation]) -> list[Annotation]:
    passages = {citation.marker: citation for citation in citations}
    return [
        Annotation(
            url_citation=UrlCitation(
                start_index=match.start(),
                end_index=match.end(),
                title=passages[int(match[1])].document,
                url=_url(passages[int(match[1])]),
            )
        )
        for match in _MARKER.finditer(answer)
        if int(match[1]) in passages
    ]


def _url(citation: Citation) -> str:
    return quote(citation.document) + ("" if citation.page is None else f"#page={citation.page}")


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
        citations = [citation.model_dump() for citation in found.citations]
        yield chunk({"role": "assistant", "content": ""}, citations=citations)
        async for part in parts:
            if isinstance(part, str):
                yield chunk({"content": part})
            elif isinstance(part, Answered):
                annotations = _annotations(part.response.answer, found.citations)
                yield chunk(
                    {"annotations": [each.model_dump() for each in annotations]},
                    part.finish_reason,
                    system_fingerprint=part.response.model,
                )
                if request.includes_usage:
                    total = ChatUsage.of(part.response.usage).model_dump()
                    yield event(orjson.dumps({**head, "choices": [], "usage": total}))
        yield DONE


def _error_event(error: RagError) -> bytes:
    return event(openai_error_json(error, None, request_id.get()))
