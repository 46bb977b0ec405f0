"""A streamed answer as the server-sent events of `/query/stream`."""

from __future__ import annotations

from app.domain.answer import Answer, Completed, Event, Retrieved, Token
from app.domain.errors import RagError
from app.http.problems import problem_json
from app.http.schemas import encode_answer, encode_retrieved, encode_token
from app.http.sse import encode_event


class QueryEventEncoder:
    """Encodes the events of one answer: `citations`, tokens without a name, and `answer`, or `error`."""

    def __init__(self) -> None:
        self._retrieved = Retrieved((), "")

    def encode(self, event: Event) -> bytes:
        """Return the next event of the stream."""
        match event:
            case Token():
                return encode_event(encode_token(event))
            case Retrieved():
                self._retrieved = event
                return encode_event(encode_retrieved(event), "citations")
            case Completed():
                return encode_event(encode_answer(Answer(self._retrieved, event)), "answer")

    def encode_error(self, error: RagError) -> bytes:
        """Return the event that ends a failed stream."""
        return encode_event(problem_json(error), "error")
