"""`python -m app`: serve, with the settings from the environment or `.env`.

The reader processes import this module again; so that they start fast, it imports little by itself.
"""

import gc
import math
import signal
import socket
import sys


def _check_host(host: str) -> None:
    """uvicorn only says `Name or service not known`, and not of what."""
    from app.settings import SettingsError  # noqa: PLC0415

    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise SettingsError(f"HOST: {host!r} is no address of this machine ({error.strerror})") from None


def main() -> int:
    # There is hardly any garbage in what is imported and loaded: looking for it takes 0.3 s. The application
    # turns this on again when it has started.
    gc.disable()

    import uvicorn  # noqa: PLC0415

    from app.settings import SettingsError, load_settings  # noqa: PLC0415
    from app.telemetry import log_config  # noqa: PLC0415

    try:
        settings = load_settings()
        _check_host(settings.host)
    except SettingsError as error:
        print(f"Wrong setting: {error}", file=sys.stderr)
        return 2
    # uvicorn drains on SIGTERM, then raises it again for the handler that was there before: a stop that went
    # well is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if settings.workers > 1:
        gc.enable()  # this process only watches the workers
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        log_config=log_config(settings.log_level),
        server_header=False,
        # Nearly every request has ended by then. What waits for longer, such as for its body, is cut off.
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_s) + 5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
