"""Addresses and networks of IP."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses or networks, with blanks or commas between them.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(part, strict=False) for part in text.replace(",", " ").split())
