"""Checks of the address that a server is to listen on."""

from __future__ import annotations

import ipaddress
import socket


def check_listening(host: str, port: int) -> None:
    """Check that a server can listen on an address.

    Raises:
        socket.gaierror: this machine has no such address.
        OSError: the address is in use, or this user may not listen on it.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as listener:
            # The server sets this too: a connection that has just been closed does not block the address.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach the address."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:  # not an address, which `check_listening` reports
        return False
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found)
