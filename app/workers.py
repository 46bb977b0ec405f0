"""The process that watches over several servers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from socket import socket
from types import FrameType

from uvicorn import Config
from uvicorn.supervisors import Multiprocess


class Workers(Multiprocess):
    """Passes a stop on at once: uvicorn's loop looks for signals every 0.5 s, and probes would be told late.

    The loop then sends it once more, which a worker that drains does not mind.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self.signal_queue.append(number)
        for process in self.processes:
            if process.pid is not None and process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
