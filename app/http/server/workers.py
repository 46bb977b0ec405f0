"""The supervisor of several worker processes."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from socket import socket
from types import FrameType

from uvicorn import Config
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
        """Replace a worker that ended or no longer answers, and log how it ended, which uvicorn does not."""
        watched = list(self.processes)
        super().keep_subprocess_alive()
        # Compared afterwards: a worker may end while uvicorn waits for its answer, for up to 5 s.
        for process in watched:
            if process not in self.processes and process.exitcode is not None:
                logger.error("worker %s %s: it is replaced", process.pid, _end_of(process.exitcode))

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
