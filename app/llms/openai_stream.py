"""A chat completion as it arrives: the provider's server-sent events become events of an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import aiohttp
import orjson

from app.domain.answer import Completed, Event, Token, Usage
from app.domain.deadline import remaining_s, until_deadline
from app.provider.client import transport_failures
from app.provider.failures import ProviderFailure, ProviderTimeout, as_malformed_response

_MAX_BYTES = 16 * 1024 * 1024
_MAX_LINE_BYTES = 1024 * 1024
# The time for the usage and the end mark after the last token; and after those for the end of the body,
# without which the connection could not be used again.
_TAIL_S = 1.0
_END_S = 0.05


class ChatStream:
    """An iterator over the tokens of an answer, and then its completion.

    Args:
        model: the name of the model that answers.
        idle_s: the longest wait for a token after the first.
    """

    def __init__(self, response: aiohttp.ClientResponse, model: str, idle_s: float) -> None:
        self._response = response
        self._model = model
        self._idle_s = idle_s
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._pieces: deque[str] = deque()
        self._text: list[str] = []
        self._completed = False
        self._rest = b""
        self._received = 0
        self._done = False

    async def begin(self) -> None:
        """Wait for the first token.

        Raises:
            ProviderFailure: the answer has none.
        """
        await self._receive()
        if not self._pieces:
            raise ProviderFailure("sent an empty answer")

    def __aiter__(self) -> ChatStream:
        return self

    async def __anext__(self) -> Event:
        if self._completed:
            raise StopAsyncIteration
        if not self._pieces and self._finish_reason is None:
            try:
                async with until_deadline(self._idle_s):
                    await self._receive()
            except TimeoutError as error:
                if remaining_s() == 0:
                    # The provider may have been sending all the time.
                    raise ProviderTimeout("did not finish within REQUEST_TIMEOUT_S", is_down=None) from error
                raise ProviderTimeout("stopped in the middle of its answer") from error
        if self._pieces:
            piece = self._pieces.popleft()
            self._text.append(piece)
            return Token(piece)
        await self._read_tail()
        self._completed = True
        return Completed("".join(self._text), self._model, self._usage, self._finish_reason or "stop")

    def close(self) -> None:
        """Return the connection to the pool, or close it if the answer has not been received completely."""
        self._response.release()

    async def _receive(self) -> None:
        """Read until there is a piece of text, or the end of the answer.

        Raises:
            ProviderFailure: the answer breaks off, is malformed, or is too long.
        """
        while not self._pieces and self._finish_reason is None:
            if not await self._read():
                raise ProviderFailure("ended its answer without a finish reason", is_transient=True)

    async def _read_tail(self) -> None:
        """Read the usage and the end of the body; a failure is no error, as the answer is complete by now."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_TAIL_S) as limit:
                while await self._read():
                    if self._done:
                        limit.reschedule(loop.time() + _END_S)
        except (TimeoutError, ProviderFailure):
            self._response.close()

    async def _read(self) -> bool:
        """Parse the data that has arrived; return False at the end of the body."""
        with transport_failures():
            data = await self._response.content.readany()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._received += len(data)
        if self._received > _MAX_BYTES or len(self._rest) > _MAX_LINE_BYTES:
            raise ProviderFailure("sent an answer without end")
        for line in lines:
            self._take_line(line)
        return bool(data)

    def _take_line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        content = line[5:].strip()
        if content == b"[DONE]":
            self._done = True
            return
        with as_malformed_response():
            event = orjson.loads(content)
            if event.get("error"):
                raise ProviderFailure("broke off its answer", event["error"])
            self._take_event(event)

    def _take_event(self, event: dict[str, Any]) -> None:
        self._usage = parse_usage(event.get("usage")) or self._usage
        for choice in event["choices"][:1]:
            if piece := parse_text(choice["delta"].get("content")):
                self._pieces.append(piece)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason


def parse_text(content: Any) -> str:
    """Return the content of a message or a delta as text; it is null where there is none."""
    if not isinstance(content, str | None):
        raise TypeError(f"the content is a {type(content).__name__}")
    return content or ""


def parse_usage(usage: dict[str, Any] | None) -> Usage | None:
    """Return the usage, or None if it is missing or incomplete, as it is with some servers."""
    usage = usage or {}
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion)
