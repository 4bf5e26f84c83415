"""Which ports are free."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

#: Below the range from which the kernel takes ports for outgoing connections, so that nobody's outgoing
#: connection sits on a port while the process that listens there is being started again.
_FIRST, _LAST = 15_000, 32_000


def is_free(address: str) -> bool:
    """Whether somebody could listen on host:port now."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except (OSError, ValueError, OverflowError):
            return False
    return True


def free_addresses(count: int) -> list[str]:
    """That many different free addresses of this machine."""
    found: list[str] = []
    # Not a secret: only that two systems started together choose differently.
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        if len(found) == count:
            break
        if is_free(f"{HOST}:{port}"):
            found.append(f"{HOST}:{port}")
    return found
