"""Times that no setting changes: fixed in production, shortened or prolonged by tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.http.sse import StreamTimes
from app.provider.retry import ONLINE, RetryPolicy
from app.storage.postgres.timeouts import TIMEOUTS, DatabaseTimeouts


@dataclass(frozen=True)
class Timing:
    """The fixed times of one server, which `create_app` hands to its parts.

    Attributes:
        queue_s: the time that a request waits for its turn before it is refused.
        online: the limits on calls to the model provider that a client waits for.
    """

    queue_s: float = 5.0
    online: RetryPolicy = ONLINE
    stream: StreamTimes = field(default_factory=StreamTimes)
    database: DatabaseTimeouts = TIMEOUTS


PRODUCTION = Timing()
