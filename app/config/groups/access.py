"""Settings of the access to the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from app.config.choices import WhenDown
from app.config.groups.group import SettingsGroup
from app.config.validators import (
    checked_api_keys,
    checked_networks,
    checked_origins,
    checked_rate_limit,
    checked_rate_limit_storage,
)


class AccessSettings(SettingsGroup, title="Access"):
    """API keys, the rate limit, and the proxies and web pages that are trusted."""

    api_keys: Annotated[SecretStr, AfterValidator(checked_api_keys)] | None = Field(
        default=None,
        description="API keys, separated by blanks or commas. Each is `name:sha256:HASH`, as `rag-service "
        "make-key` prints it, `name:KEY` or `KEY`.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with API keys, one a line, and comments that begin with `#`. It is read again "
        "when it changes.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Lets the server listen on a network without API keys, so that everybody may ask.",
    )
    open_metrics: bool = Field(
        default=False,
        description="Serves `/metrics` without an API key.",
    )
    open_docs: bool = Field(
        default=False,
        description="Serves `/docs` and `/openapi.json` without an API key.",
    )
    rate_limit: Annotated[str | None, AfterValidator(checked_rate_limit)] = Field(
        default=None,
        description="Number of questions in a time, such as `60/minute`, for each name of an API key, or "
        "for each address if there are no keys. By default there is no limit.",
    )
    rate_limit_storage: Annotated[SecretStr, AfterValidator(checked_rate_limit_storage)] = Field(
        default=SecretStr("memory://"),
        description="Store in which questions are counted: `memory://`, or a Redis such as "
        "`redis://:password@host:6379/0`, which several workers or machines need.",
    )
    rate_limit_when_down: WhenDown = Field(
        default=WhenDown.ALLOW,
        description="Decision on questions while that Redis does not answer.",
    )
    trusted_proxies: Annotated[str, AfterValidator(checked_networks)] = Field(
        default="",
        description="Addresses and networks of proxies whose `X-Forwarded-For` is believed, separated by "
        "blanks or commas.",
    )
    cors_origins: Annotated[str, AfterValidator(checked_origins)] = Field(
        default="",
        description="Origins whose pages may ask from a browser, such as `https://app.example.com`, "
        "separated by blanks or commas, or `*` for all.",
    )
