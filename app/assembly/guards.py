"""What stands before the routes: keys, rate limits, and bounds."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.config.api_key_entries import parse_keys
from app.config.networks import parse_networks
from app.config.settings import Settings, SettingsError, WhenDown
from app.http.api_keys import ApiKeys
from app.http.client_address import ClientAddress
from app.http.middleware.authentication import Authentication
from app.http.middleware.header_limit import HeadLimit
from app.http.middleware.rate_limit import RateLimit
from app.http.paths import DOCS, METRICS, PROBES
from app.http.rate_limiter import RateLimits, make_storage
from app.http.server.sockets import is_loopback

_SENT_HEADERS = ["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"]
_READ_HEADERS = [
    *("Retry-After", "WWW-Authenticate", "X-Request-ID"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
]


def make_api_keys(settings: Settings) -> ApiKeys | None:
    """None where the settings name none.

    Raises:
        SettingsError: the file cannot be read, or no key is in it.
    """
    if settings.api_keys is None and settings.api_keys_file is None:
        return None
    text = settings.api_keys.get_secret_value() if settings.api_keys else ""
    try:
        return ApiKeys(parse_keys(text), settings.api_keys_file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"API_KEYS_FILE: {settings.api_keys_file}: {error}") from None


def check_openness(settings: Settings) -> ApiKeys | None:
    """The keys; without any, only this machine may ask, unless whoever starts it says otherwise.

    Raises:
        SettingsError: others may; or see `make_api_keys`.
    """
    keys = make_api_keys(settings)
    if keys is None and not settings.allow_anonymous and not is_loopback(settings.host):
        raise SettingsError(
            f"API_KEYS: none is set, and HOST ({settings.host}) lets others in: set API_KEYS or "
            "API_KEYS_FILE, or ALLOW_ANONYMOUS=true"
        )
    return keys


def make_rate_limits(settings: Settings) -> RateLimits | None:
    if settings.rate_limit is None:
        return None
    return RateLimits(
        settings.rate_limit,
        make_storage(settings.rate_limit_storage.get_secret_value()),
        refuse_when_down=settings.rate_limit_when_down is WhenDown.REFUSE,
    )


def add_guards(app: FastAPI, settings: Settings, keys: ApiKeys | None, limits: RateLimits | None) -> None:
    """The last that is added is the first that sees a request."""
    if limits is not None:
        address_of = ClientAddress(parse_networks(settings.trusted_proxies))
        app.add_middleware(RateLimit, limits=limits, address_of=address_of)
    if keys is not None:
        app.add_middleware(Authentication, keys=keys, open_paths=_open_paths(settings))
    app.add_middleware(HeadLimit)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(),
            allow_methods=["GET", "POST"],
            allow_headers=_SENT_HEADERS,
            expose_headers=_READ_HEADERS,
        )


def _open_paths(settings: Settings) -> frozenset[str]:
    metrics = METRICS if settings.open_metrics else frozenset()
    docs = DOCS if settings.open_docs else frozenset()
    return PROBES | metrics | docs
