"""What must not be seen outside of this process."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from app.config.settings import Settings


def secrets_of(settings: Settings) -> list[str]:
    """All that are set, and the passwords in them, as they are and as an address spells them."""
    values = [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]
    parts = [part for value in values for part in value.split()]
    passwords = [password for part in parts if (password := _password(part))]
    return list(dict.fromkeys([*values, *parts, *passwords, *map(unquote, passwords)]))


def _password(text: str) -> str | None:
    try:
        return urlsplit(text).password
    except ValueError:  # no address
        return None
