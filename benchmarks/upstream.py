"""A model provider that costs next to nothing: `python -m benchmarks.upstream --port 9000`.

It speaks OpenAI's API (embeddings, chat completions, streamed ones too) and answers after a fixed time. All
that can be made beforehand is, so that its own work takes no part in what is measured: 0.07 ms for an
embedding and 0.03 ms for a completion.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, cast

import httptools
import uvloop

from benchmarks.processes import Replica, free_port, running
from benchmarks.vectors import Vector, embed

_WORDS = ("The ", "passages ", "say ", "so ", "[1]", ", ", "and ", "then ", "some ")
ANSWER_START = "The passages say so [1]"
_MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Provider:
    """How the provider answers; times in milliseconds.

    Attributes:
        chat_ms: until the whole completion, or, where it is streamed, until the first token.
        tokens: of an answer.
        token_ms: from one streamed token to the next; all come at once where it is 0.
    """

    embedding_ms: float = 0
    chat_ms: float = 0
    tokens: int = 20
    token_ms: float = 0

    def limit(self, users: int) -> float:
        """Queries a second that so many users get at best, each asking again when answered."""
        return users * 1000 / (self.embedding_ms + self.chat_ms)


@contextmanager
def provider(settings: Provider) -> Iterator[Replica]:
    """The provider as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", f"--port={port}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in vars(settings).items()]
    with running(command, port=port, ready="/health") as server:
        yield server


class _Answers:
    """Responses, ready to be sent."""

    def __init__(self, settings: Provider) -> None:
        words = list(islice(cycle(_WORDS), settings.tokens))
        usage = {
            "prompt_tokens": 812,
            "completion_tokens": len(words),
            "total_tokens": 812 + len(words),
        }
        self.health = _response(b'{"status":"ok"}')
        self.unknown = _response(b'{"error":{"message":"no such route"}}', status="404 Not Found")
        message = {"role": "assistant", "content": "".join(words), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        self.completion = _response(_completion("chat.completion", choices=[choice], usage=usage))
        self.tokens = [_delta({"content": word}) for word in words]
        self.tokens[0] = _STREAM_HEAD + _delta({"role": "assistant", "content": ""}) + self.tokens[0]
        self._stop = _delta({}, finish_reason="stop")
        self._usage = _event(_completion("chat.completion.chunk", choices=[], usage=usage))

    def stream_end(self, *, with_usage: bool) -> bytes:
        return self._stop + (self._usage if with_usage else b"") + _event(b"[DONE]") + b"0\r\n\r\n"


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _response(body: bytes, *, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _event(data: bytes) -> bytes:
    event = b"data: %s\n\n" % data
    return b"%x\r\n%s\r\n" % (len(event), event)


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return _event(_completion("chat.completion.chunk", choices=[choice]))


def _completion(kind: str, **fields: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": kind, "created": 1_790_000_000, "model": _MODEL}
    return json.dumps({**head, **fields}, separators=(",", ":")).encode()


def _embeddings(request: dict[str, Any]) -> bytes:
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    written = Vector.base64 if request.get("encoding_format") == "base64" else Vector.floats
    return _response(_embeddings_body([written(embed(text)) for text in texts], request["model"]))


def _embeddings_body(vectors: Sequence[str], model: str) -> bytes:
    data = ",".join(
        f'{{"object":"embedding","index":{index},"embedding":{vector}}}'
        for index, vector in enumerate(vectors)
    )
    usage = '{"prompt_tokens":12,"total_tokens":12}'
    return f'{{"object":"list","data":[{data}],"model":{json.dumps(model)},"usage":{usage}}}'.encode()


class _Connection(asyncio.Protocol):
    """One request after the other; what is to be sent later is dropped when the client goes away."""

    def __init__(self, settings: Provider, answers: _Answers) -> None:
        self._settings = settings
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._path = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_message_begin(self) -> None:
        self._path, self._body = b"", []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._path == b"/v1/embeddings":
            self._send_after(self._settings.embedding_ms, _embeddings(json.loads(b"".join(self._body))))
        elif self._path == b"/v1/chat/completions":
            self._complete(json.loads(b"".join(self._body)))
        else:
            self._transport.write(self._answers.health if self._path == b"/health" else self._answers.unknown)

    def _complete(self, request: dict[str, Any]) -> None:
        if not request.get("stream"):
            self._send_after(self._settings.chat_ms, self._answers.completion)
            return
        with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        end = self._answers.stream_end(with_usage=with_usage)
        if self._settings.token_ms:
            events = iter([*self._answers.tokens, end])
            self._later(self._settings.chat_ms, lambda: self._send_next(events))
        else:
            self._send_after(self._settings.chat_ms, b"".join([*self._answers.tokens, end]))

    def _send_after(self, delay_ms: float, data: bytes) -> None:
        if delay_ms:
            self._later(delay_ms, lambda: self._transport.write(data))
        else:
            self._transport.write(data)

    def _send_next(self, events: Iterator[bytes]) -> None:
        if (event := next(events, None)) is not None:
            self._transport.write(event)
            self._later(self._settings.token_ms, lambda: self._send_next(events))

    def _later(self, delay_ms: float, send: Any) -> None:
        self._timer = self._loop.call_later(delay_ms / 1000, send)


async def _serve(port: int, settings: Provider) -> None:
    answers = _Answers(settings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(settings, answers), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--embedding-ms", type=float, default=0)
    parser.add_argument("--chat-ms", type=float, default=0)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--token-ms", type=float, default=0)
    arguments = vars(parser.parse_args())
    uvloop.run(_serve(arguments.pop("port"), Provider(**arguments)))


if __name__ == "__main__":
    main()
