"""Answers as OpenAI's chat completions: whole, and in chunks."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from app.domain.answer import Answer, Completed, Event, Passage, Retrieved, Token
from app.domain.errors import RagError
from app.http.openai_errors import openai_error_json
from app.http.openai_schemas import (
    MODEL_ID,
    Annotation,
    ChatChoice,
    ChatCompletion,
    ChatMessageOut,
    ChatUsage,
    UrlCitation,
)
from app.http.schemas import citations_of
from app.http.sse import encode_event
from app.observability.logging import request_id

_MARKER = re.compile(r"\[(\d{1,4})\]")


def encode_completion(answer: Answer) -> bytes:
    """Return the JSON of `ChatCompletion`."""
    passages, completed = answer.retrieved.passages, answer.completed
    message = ChatMessageOut(content=completed.text, annotations=_annotations(completed.text, passages))
    completion = ChatCompletion(
        id=_new_id(),
        created=int(time.time()),
        model=MODEL_ID,
        choices=[ChatChoice(message=message, finish_reason=completed.finish_reason)],
        usage=ChatUsage.of(completed.usage),
        system_fingerprint=completed.model,
        citations=citations_of(passages),
    )
    return completion.model_dump_json().encode()


class ChunkEncoder:
    """Encodes the events of one answer as chunks of a chat completion.

    Args:
        includes_usage: whether a chunk with the usage follows the last; all others then have null there, as
            OpenAI's do.
    """

    def __init__(self, *, includes_usage: bool) -> None:
        self._head: dict[str, Any] = {
            "id": _new_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": MODEL_ID,
        }
        self._includes_usage = includes_usage
        self._usage = {"usage": None} if includes_usage else {}
        self._passages: Sequence[Passage] = ()

    def encode(self, event: Event) -> bytes:
        """Return the next chunk, and behind the last one the usage."""
        match event:
            case Token():
                return self._chunk({"content": event.text})
            case Retrieved():
                self._passages = event.passages
                citations = citations_of(event.passages)
                return self._chunk({"role": "assistant", "content": ""}, citations=citations)
            case Completed():
                return self._end(event)

    def encode_error(self, error: RagError) -> bytes:
        """Return the event that ends a failed stream."""
        return encode_event(openai_error_json(error, None, request_id.get()))

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return encode_event(orjson.dumps({**self._head, "choices": [choice], **self._usage, **extra}))

    def _end(self, completed: Completed) -> bytes:
        annotations = [each.model_dump() for each in _annotations(completed.text, self._passages)]
        end = self._chunk(
            {"annotations": annotations}, completed.finish_reason, system_fingerprint=completed.model
        )
        if self._includes_usage:
            total = ChatUsage.of(completed.usage).model_dump()
            end += encode_event(orjson.dumps({**self._head, "choices": [], "usage": total}))
        return end


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
