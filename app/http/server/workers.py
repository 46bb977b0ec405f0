"""The supervisor of several worker processes."""

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
    """The supervisor of uvicorn, except that it forwards a signal to stop at once.

    uvicorn's loop looks for signals only every 0.5 s, so that probes would learn of the stop late. The loop
    then sends the signal once more, which a draining worker ignores.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)

    def keep_subprocess_alive(self) -> None:
        """Log how a worker ended unexpectedly, which uvicorn does not, and replace it."""
        if not self.should_exit.is_set():
            for process in self.processes:
                if process.exitcode not in (None, STARTUP_FAILURE):
                    logger.error("worker %s %s: it is replaced", process.pid, _end_of(process.exitcode))
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
