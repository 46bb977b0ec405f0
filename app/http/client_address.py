"""The address that a request comes from, also behind proxies."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from app.config.networks import Address, Network

if TYPE_CHECKING:  # the settings import this, and the commands that have no server, too
    from starlette.types import Scope


class ClientAddress:
    """Believes `X-Forwarded-For` as far as those are trusted who wrote it.

    Each proxy appends the address that it was asked from, so the list is walked from its end: what is left of
    the first address that is not trusted may be made up.
    """

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        self._trusted = trusted

    def __call__(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope.get("client") else ""
        address = _parse(peer)
        if address is None or not self._is_trusted(address):
            return _group(address) if address else peer
        for hop in reversed(_forwarded_for(scope)):
            before = _parse(hop)
            if before is None:
                break
            address = before
            if not self._is_trusted(address):
                break
        return _group(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _forwarded_for(scope: Scope) -> list[str]:
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1").split(",") if values else []


def _parse(text: str) -> Address | None:
    """Also with a port, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _group(address: Address) -> str:
    """An IPv6 client has at least 2**64 addresses of its own."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), 64), strict=False).network_address)
