"""Whether a server could listen where it is told to."""

from __future__ import annotations

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
