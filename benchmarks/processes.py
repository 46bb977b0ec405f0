"""Servers as separate processes: starting, stopping, and measuring their processor time and memory."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.datasets import ROOT

_READY_LIMIT_S = 120.0
_STOP_LIMIT_S = 30.0
_ANSWER_LIMIT_S = 5.0
# The processor time in half a second up to which a server counts as idle.
_IDLE_S = 0.05
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process tree in MiB; pages that its processes share count once.

    Attributes:
        anonymous: the part not mapped from files, which the kernel cannot drop.
    """

    total: float
    anonymous: float


@dataclass(frozen=True)
class Replica:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Return the user and system time of the process and its descendants."""
        return sum(_cpu_ticks(pid) for pid in tree(self.process.pid)) / _TICKS_A_SECOND

    def memory(self) -> Memory:
        return memory_of(self.process.pid)

    def settle(self) -> None:
        """Wait until the server is idle, as one worker answers before the others have started."""
        deadline = time.monotonic() + _READY_LIMIT_S
        while time.monotonic() < deadline:
            before = self.cpu_s()
            time.sleep(0.5)
            if self.cpu_s() - before < _IDLE_S:
                return
        raise RuntimeError(f"the server does not become idle: {self.output()}")

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]


@contextmanager
def running(
    command: Sequence[str], *, port: int, ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[Replica]:
    """Run a server, and wait until it answers 200 at the path `ready`.

    Its working directory is a temporary one, so that no `.env` is read; its output goes to a file there.
    """
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=dict(environment or {**os.environ, "PYTHONPATH": str(ROOT)}),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Replica(process, port, log)
        try:
            _wait_until_ready(server, ready)
            yield server
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, or kill it and its descendants if it does not end."""
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        for pid in tree(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait(_STOP_LIMIT_S)


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tree(root: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def memory_of(root: int) -> Memory:
    """Return the memory of a process and its descendants."""
    found = [_memory(pid) for pid in tree(root)]
    return Memory(sum(each.total for each in found), sum(each.anonymous for each in found))


def _wait_until_ready(server: Replica, path: str) -> None:
    deadline = time.monotonic() + _READY_LIMIT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        if is_ready(server.port, path):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not become ready: {server.output()}")


def is_ready(port: int, path: str) -> bool | None:
    """Return True if a GET request gets 200, None if nothing listens; cheap enough for frequent polling."""
    with socket.socket() as connection:
        connection.settimeout(_ANSWER_LIMIT_S)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
        except ConnectionRefusedError:
            return None
        except OSError:
            return False


def _stat(pid: int) -> list[str]:
    """Read /proc/PID/stat from the state on; the name before it may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_ticks(pid: int) -> int:
    """Return the processor time of a process, including that of its ended children."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return sum(int(field) for field in _stat(pid)[11:15])
    return 0


def _memory(pid: int) -> Memory:
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return Memory(kib["Pss"] / 1024, kib["Pss_Anon"] / 1024)
    return Memory(0, 0)
