"""Which settings are secret, and how secrets are taken out of text."""

from __future__ import annotations

import pytest

from app.config.secrets import SecretMask, is_secret, may_be_shown, secrets_of
from app.config.settings import FIELDS, Settings


def test_the_secret_settings_are_these() -> None:
    """They contain a key or a password."""
    assert {name for name in FIELDS if is_secret(FIELDS[name])} == {
        "api_keys",
        "database_read_urls",
        "database_url",
        "openai_api_key",
        "rate_limit_storage",
    }


def test_invalid_values_that_may_hold_a_password_are_not_shown() -> None:
    hidden = {name for name in FIELDS if not may_be_shown(FIELDS[name]) and not is_secret(FIELDS[name])}
    assert hidden == {"openai_base_url", "otel_exporter_otlp_endpoint"}


def test_secrets_are_found_in_every_group() -> None:
    """This includes the passwords of addresses, encoded and decoded."""
    settings = Settings(
        openai_api_key="sk-planted",
        database_url="postgresql://u:pl%40nted@db/rag",
        database_read_urls="postgresql://u:second@one/rag postgresql://u:third@two/rag",
        rate_limit_storage="redis://:fourth@redis",
    )
    assert {"sk-planted", "pl%40nted", "pl@nted", "second", "third", "fourth"} <= set(secrets_of(settings))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nothing", "nothing"),
        ("a secret-key and secret", "a *** and ***"),
        ('{"key": "secret\\"quoted"}', '{"key": "***"}'),
        ("Bearer abc.def, Basic dXNlcg==; more", "Bearer ***, Basic ***; more"),
        ("short", "short"),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    """The longest is masked first, also as JSON spells it, and short ones stay."""
    mask = SecretMask(["secret", "secret-key", 'secret"quoted', "or"], min_chars=6)
    assert mask.apply(text) == masked
