"""`python -m app`: serve, with the settings from the environment or `.env`.

The reader processes import this module again; so that they start fast, it imports little by itself.
"""

import gc
import signal
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn


# For answers that are made and not yet sent; requests in work have had DRAIN_TIMEOUT_S before.
_CLOSE_TIMEOUT_S = 5
_STOPS = (signal.SIGTERM, signal.SIGINT)


def _check_address(host: str, port: int) -> None:
    """uvicorn says what is wrong after the index has been loaded, and not of what."""
    from app.config.settings import SettingsError  # noqa: PLC0415
    from app.http.server.sockets import check_listening  # noqa: PLC0415

    try:
        check_listening(host, port)
    except socket.gaierror as error:
        raise SettingsError(f"HOST: {host!r} is no address of this machine ({error.strerror})") from None
    except OSError as error:
        raise SettingsError(f"PORT: {host}:{port} cannot be listened on ({error.strerror})") from None


def _end(*_: object) -> None:
    """End well: uvicorn stops on a signal, then raises it again for the handler that was there before.

    Whoever asks once more must not disturb the interpreter's own end.
    """
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def _serve(config: "uvicorn.Config") -> None:
    if config.workers == 1:
        import uvicorn  # noqa: PLC0415

        uvicorn.Server(config).run()
        return
    from app.http.server.workers import Workers  # noqa: PLC0415

    gc.enable()  # this process only watches the workers
    Workers(config, [config.bind_socket()]).run()


def main() -> int:
    # There is hardly any garbage in what is imported and loaded: looking for it takes 0.3 s. The application
    # turns this on again when it has started.
    gc.disable()

    import uvicorn  # noqa: PLC0415

    from app.bootstrap.access import require_keys_unless_loopback  # noqa: PLC0415
    from app.bootstrap.tracing import check_tracing  # noqa: PLC0415
    from app.config.secrets import secrets_of  # noqa: PLC0415
    from app.config.settings import SettingsError, load_settings  # noqa: PLC0415
    from app.observability.logging import log_config  # noqa: PLC0415
    from app.observability.worker_metrics import shared_metrics  # noqa: PLC0415

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
        # uvicorn would believe whoever asks from 127.0.0.1; TRUSTED_PROXIES says whom the service believes.
        proxy_headers=False,
        log_config=log_config(
            settings.observability.log_level, settings.observability.log_format, secrets_of(settings)
        ),
        access_log=False,  # app/http/access_log.py writes a line that says more
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
    )
    with shared_metrics(settings.server.workers, settings.index.scratch_dir):
        _serve(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
