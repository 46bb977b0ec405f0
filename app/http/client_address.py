"""The address of a request's client, also behind proxies."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from app.config.networks import Address, Network

if TYPE_CHECKING:  # also imported by commands that run without a server
    from starlette.types import Scope


class ClientAddress:
    """A function that finds the address of a request's client, trusting `X-Forwarded-For` of known proxies.

    Each proxy appends the address of its own client, so the list is read from its end. Everything to the left
    of the first address that is not trusted may be forged.
    """

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        self._trusted = trusted

    def __call__(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope.get("client") else ""
        address = _parse(peer)
        if address is None or not self._is_trusted(address):
            return _group(address) if address else peer
        for hop in reversed(_forwarded_for(scope)):
            previous = _parse(hop)
            if previous is None:
                break
            address = previous
            if not self._is_trusted(address):
                break
        return _group(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _forwarded_for(scope: Scope) -> list[str]:
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1").split(",") if values else []


def _parse(text: str) -> Address | None:
    """Parse an address, which some proxies write with a port."""
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
    """Return an IPv4 address, or the /64 network of an IPv6 address, which is a single client's."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), 64), strict=False).network_address)
