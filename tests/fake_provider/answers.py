"""Answers as OpenAI's API gives them, made of what a request asks for.

A chat answer is made once for each reply and then kept, so that a load test pays for sending it only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from tests.fake_provider.vectors import Vectors

Json = dict[str, Any]

# A few replies times a few models; a test with thousands of them only makes them anew.
_KEPT = 64
_CREATED = 1_790_000_000
_LAST_CHUNK = b"0\r\n\r\n"


class Event(NamedTuple):
    """A server-sent event of a stream, and the number of the reply's piece in it, where there is one."""

    data: bytes
    piece: int | None = None


@dataclass(frozen=True)
class Answer:
    """The body of an answer, and its events where it is a stream."""

    body: bytes
    events: tuple[Event, ...] | None = None

    @cached_property
    def wire(self) -> bytes:
        """The whole response, with its head and its framing."""
        if self.events is None:
            return head(content_type="application/json", content_length=str(len(self.body))) + self.body
        chunks = b"".join(chunk(event.data) for event in self.events)
        return STREAM_HEAD + chunks + _LAST_CHUNK


@dataclass(frozen=True)
class Reply:
    """A completion's content: the pieces in which a stream sends it, why it ends, and its usage."""

    pieces: tuple[str, ...]
    finish_reason: str = "stop"
    prompt_tokens: int = 812
    completion_tokens: int = 64

    @property
    def usage(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def health() -> Answer:
    return Answer(b'{"status": "ok"}')


def embeddings(request: Json, vectors: Vectors) -> Answer:
    """Return a vector for each text: a list or, if asked for, base64 of little-endian float32."""
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    written = vectors.base64 if request.get("encoding_format") == "base64" else vectors.floats
    # Joined as text: encoding 1,536 numbers again would take longer than all the rest.
    data = ", ".join(
        f'{{"object": "embedding", "index": {index}, "embedding": {written(text)}}}'
        for index, text in enumerate(texts)
    )
    beginning = f'{{"object": "list", "model": {json.dumps(request["model"])}, "data": ['
    usage = '"usage": {"prompt_tokens": 12, "total_tokens": 12}'
    return Answer(f"{beginning}{data}], {usage}}}".encode())


def chat(request: Json, reply: Reply) -> Answer:
    """Return the reply as a completion, or as a stream if that is asked for."""
    if not request.get("stream"):
        return _completion(request["model"], reply)
    options = request.get("stream_options") or {}
    return _stream(request["model"], reply, with_usage=bool(options.get("include_usage")))


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def words(text: str) -> list[str]:
    """Cut a text as a stream does: words with the blanks before them, and what is left at the end."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def head(status: int = 200, **headers: str) -> bytes:
    """Return the head of a response; underscores in the names of headers stand for hyphens."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} Status", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """Frame a part of a body that is sent in chunks; no data is its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = head(content_type="text/event-stream; charset=utf-8", transfer_encoding="chunked")


@lru_cache(_KEPT)
def _completion(model: str, reply: Reply) -> Answer:
    message = {"role": "assistant", "content": "".join(reply.pieces), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}
    answer = _envelope("chat.completion", model, [choice]) | {"usage": reply.usage}
    return Answer(json.dumps(answer).encode())


@lru_cache(_KEPT)
def _stream(model: str, reply: Reply, *, with_usage: bool) -> Answer:
    """The role, each piece, the finish reason, the usage if it was asked for, the end mark."""
    no_usage = {"usage": None} if with_usage else {}

    def delta(content: Json, finish_reason: str | None = None, piece: int | None = None) -> Event:
        choice = {"index": 0, "delta": content, "finish_reason": finish_reason, "logprobs": None}
        return Event(event(json.dumps(_envelope("chat.completion.chunk", model, [choice]) | no_usage)), piece)

    events = [
        delta({"role": "assistant", "content": ""}),
        *(delta({"content": text}, piece=number) for number, text in enumerate(reply.pieces)),
        delta({}, reply.finish_reason),
    ]
    if with_usage:
        usage = _envelope("chat.completion.chunk", model, []) | {"usage": reply.usage}
        events.append(Event(event(json.dumps(usage))))
    events.append(Event(event("[DONE]")))
    return Answer(b"".join(each.data for each in events), tuple(events))


def _envelope(kind: str, model: str, choices: list[Json]) -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": _CREATED, "model": model, "choices": choices}
