"""Serve over HTTP, with the settings from the environment or `.env`."""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn

from app.bootstrap.access import require_keys_unless_loopback
from app.bootstrap.tracing import check_tracing
from app.config.secrets import secrets_of
from app.config.settings import SettingsError, load_settings
from app.http.server.sockets import check_listening
from app.http.server.workers import Workers
from app.observability.logging import log_config
from app.observability.worker_metrics import shared_metrics

# The time to send answers that are complete; requests in progress have had DRAIN_TIMEOUT_S before.
_CLOSE_TIMEOUT_S = 5
_STOPS = (signal.SIGTERM, signal.SIGINT)


def _check_address(host: str, port: int) -> None:
    """Check that the server can listen on its address.

    uvicorn would do so only after the index has been loaded, and would not name the setting.
    """
    try:
        check_listening(host, port)
    except socket.gaierror as error:
        raise SettingsError(f"HOST: {host!r} is not an address of this machine ({error.strerror})") from None
    except OSError as error:
        raise SettingsError(f"PORT: cannot listen on {host}:{port} ({error.strerror})") from None


def _end(*_: object) -> None:
    """Exit with status 0: uvicorn stops on a signal, then raises it again for the previous handler.

    Further signals are ignored, so that they do not disturb the interpreter's shutdown.
    """
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def _serve(config: uvicorn.Config) -> None:
    if config.workers == 1:
        uvicorn.Server(config).run()
        return
    gc.enable()  # this process only watches the workers
    Workers(config, [config.bind_socket()]).run()


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Serve until the server is told to stop, and return the exit status."""
    argparse.ArgumentParser(prog=program, description=__doc__).parse_args(arguments)
    # Stays off while the application is imported and the index is loaded; `relax_gc` turns it on again.
    gc.disable()
    try:
        settings = load_settings()
        _check_address(settings.server.host, settings.server.port)
        require_keys_unless_loopback(settings)
        check_tracing(settings)
    except SettingsError as error:
        print(f"Wrong setting: {error}", file=sys.stderr)
        return 2
    for number in _STOPS:
        signal.signal(number, _end)
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        host=settings.server.host,
        port=settings.server.port,
        workers=settings.server.workers,
        loop="uvloop",
        http="app.http.server.protocol:BoundedProtocol",
        ws="none",
        # uvicorn would trust any client at 127.0.0.1; the service trusts TRUSTED_PROXIES only.
        proxy_headers=False,
        log_config=log_config(
            settings.observability.log_level, settings.observability.log_format, secrets_of(settings)
        ),
        access_log=False,  # app/http/access_log.py writes a more detailed line
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
    )
    with shared_metrics(settings.server.workers, settings.index.scratch_dir):
        _serve(config)
    return 0
