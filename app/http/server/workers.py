"""The process that watches over several servers."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from socket import socket
from types import FrameType

from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

logger = logging.getLogger(__name__)


class Workers(Multiprocess):
    """Passes a stop on at once: uvicorn's loop looks for signals every 0.5 s, and probes would be told late.

    The loop then sends it once more, which a worker that drains does not mind.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)

    def keep_subprocess_alive(self) -> None:
        """Says what uvicorn does not: how a worker ended that was not told to."""
        if not self.should_exit.is_set():
            for process in self.processes:
                if process.exitcode not in (None, STARTUP_FAILURE):
                    logger.error("worker %s %s: another is started", process.pid, _end_of(process.exitcode))
        super().keep_subprocess_alive()

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self.signal_queue.append(number)
        for process in self.processes:
            if process.pid is not None and process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)


def _end_of(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with status {exit_code}"
    return f"was killed by {signal.Signals(-exit_code).name}"
