"""IP addresses and networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse addresses or networks that are separated by blanks or commas.

    Raises:
        ValueError: a part is neither.
    """
    return tuple(ip_network(part, strict=False) for part in text.replace(",", " ").split())
