"""A parser of event streams that follows the WHATWG's specification of EventSource."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Event:
    """An event as a page's listener gets it; one without a name is a `message`."""

    data: str
    name: str = "message"
    last_id: str = ""


@dataclass
class EventStreamParser:
    """A parser that takes bytes in parts of any size; an event is complete when its empty line has arrived.

    Attributes:
        comments: the text of each comment line so far, in order.
        retry_ms: the reconnection time that the stream last set.
    """

    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8-sig")("replace")
    )
    _line: str = ""
    _after_cr: bool = False
    _name: str = ""
    _data: list[str] = field(default_factory=list)
    _last_id: str = ""

    def feed(self, data: bytes) -> list[Event]:
        """Parse bytes, and return the events that they complete."""
        text = self._decoder.decode(data)
        if not text:
            return []
        # An LF at the beginning belongs to the CR at the end of the previous part.
        *lines, self._line = _LINE_END.split(
            self._line + (text.removeprefix("\n") if self._after_cr else text)
        )
        self._after_cr = text.endswith("\r")
        events: list[Event] = []
        for line in lines:
            if line:
                self._take(line)
            elif event := self._dispatch():
                events.append(event)
        return events

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data = "", []
        if not data:
            return None
        return Event("\n".join(data), name or "message", self._last_id)


def parse(data: bytes) -> list[Event]:
    """Parse a whole stream; an event without its final empty line is dropped."""
    return EventStreamParser().feed(data)
