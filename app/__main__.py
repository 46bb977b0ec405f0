"""`python -m app`: serve, with the settings from the environment or `.env`.

The reader processes import this module again; so that they start fast, it imports little by itself.
"""

import signal
import sys


def main() -> int:
    import uvicorn  # noqa: PLC0415

    from app.settings import SettingsError, load_settings  # noqa: PLC0415
    from app.telemetry import log_config  # noqa: PLC0415

    try:
        settings = load_settings()
    except SettingsError as error:
        print(f"Wrong setting: {error}", file=sys.stderr)
        return 2
    # uvicorn drains on SIGTERM, then raises it again for the handler that was there before: a stop that went
    # well is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=log_config(settings.log_level),
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
