"""Where a server is told to listen: whether it could, and who would reach it."""

from __future__ import annotations

import ipaddress
import socket


def check_listening(host: str, port: int) -> None:
    """
    Raises:
        socket.gaierror: this machine has no such address.
        OSError: it is in use, or this user may not.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as listener:
            # As the server does: a connection that has just ended is not in the way.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:  # it is no address at all, which `check_listening` tells
        return False
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found)
