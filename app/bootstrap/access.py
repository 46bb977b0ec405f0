"""Access control: API keys and rate limits."""

from __future__ import annotations

from app.config.api_key_entries import parse_keys
from app.config.choices import WhenDown
from app.config.settings import Settings, SettingsError
from app.http.api_keys import ApiKeys
from app.http.rate_limiter import RateLimiter, make_storage
from app.http.server.sockets import is_loopback


def make_api_keys(settings: Settings) -> ApiKeys | None:
    """Read the API keys; None if the settings name none.

    Raises:
        SettingsError: the file cannot be read, or no key is in it.
    """
    if settings.access.api_keys is None and settings.access.api_keys_file is None:
        return None
    text = settings.access.api_keys.get_secret_value() if settings.access.api_keys else ""
    try:
        return ApiKeys(parse_keys(text), settings.access.api_keys_file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"API_KEYS_FILE: {settings.access.api_keys_file}: {error}") from None


def require_keys_unless_loopback(settings: Settings) -> ApiKeys | None:
    """Read the API keys, without which only this machine may ask, unless ALLOW_ANONYMOUS says otherwise.

    Raises:
        SettingsError: others may; or see `make_api_keys`.
    """
    keys = make_api_keys(settings)
    if keys is None and not settings.access.allow_anonymous and not is_loopback(settings.server.host):
        raise SettingsError(
            f"API_KEYS: none is set, and HOST ({settings.server.host}) lets others in: set API_KEYS or "
            "API_KEYS_FILE, or ALLOW_ANONYMOUS=true"
        )
    return keys


def make_rate_limits(settings: Settings) -> RateLimiter | None:
    """Make the rate limiter; None if no limit is set."""
    if settings.access.rate_limit is None:
        return None
    return RateLimiter(
        settings.access.rate_limit,
        make_storage(settings.access.rate_limit_storage.get_secret_value()),
        refuse_when_down=settings.access.rate_limit_when_down is WhenDown.REFUSE,
    )
