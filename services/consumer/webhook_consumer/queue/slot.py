"""The stable name under which a process reads a group.

A name (`w-00`, `w-01`...) is leased in Redis. A process that comes back takes the lowest free name, which
is usually its old one, and so finds what it was holding when it went.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import OutOfMemoryError
from webhook_shared.redis import Client, ResponseError, Script

MOST_SLOTS = 1000
_TOKEN = re.compile(r"(?P<machine>.+)/(?P<pid>\d+)/[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Slot:
    """A leased name.

    Attributes:
        name: The consumer's name in the group: "w-07".
        lease: The lease's key.
        token: Proves that the lease is this process's.
    """

    name: str
    lease: str
    token: str


class Slots:
    """The names of one group.

    Args:
        client: Where the leases live.
        lease: Gives the lease's key for a name.
        ttl_ms: How long a lease outlives its last renewal.
    """

    def __init__(self, client: Client, lease: Callable[[str], str], ttl_ms: int) -> None:
        self._client = client
        self._lease = lease
        self._ttl_ms = ttl_ms
        self._hold = Script.load("webhook_consumer", "hold")
        self._let_go = Script.load("webhook_consumer", "let_go")

    async def take(self) -> Slot:
        """Lease the lowest name that is free.

        A server that is full takes no lease; the name is then one that nobody else can have, so that the
        queue is worked off and the server gets room again.

        Raises:
            RuntimeError: None of MOST_SLOTS is.
        """
        nonce = secrets.token_hex(8)
        token = f"{machine()}/{os.getpid()}/{nonce}"
        try:
            return await self._lowest(token)
        except ResponseError as error:
            if not is_full(error):
                raise
            return Slot(name := f"w-{nonce}", self._lease(name), token)

    async def _lowest(self, token: str) -> Slot:
        for number in range(MOST_SLOTS):
            slot = Slot(name := f"w-{number:02}", self._lease(name), token)
            holder = await self._held_by(slot)
            if holder != token and is_dead(holder):
                holder = await self._held_by(slot, instead_of=holder)
            if holder == token:
                return slot
        raise RuntimeError(f"all {MOST_SLOTS} consumer names are taken")

    async def keep(self, slot: Slot) -> bool:
        """Renew a lease; False where somebody else holds it by now."""
        try:
            return await self._held_by(slot) == slot.token
        except ResponseError as error:
            if not is_full(error):
                raise
            # Nobody had it, and nobody can take it now.
            return True

    async def give_back(self, slot: Slot) -> None:
        """Free the name at once."""
        await self._let_go(self._client, [slot.lease], [slot.token])

    async def _held_by(self, slot: Slot, *, instead_of: str = "") -> str:
        holder = await self._hold(self._client, [slot.lease], [slot.token, instead_of, self._ttl_ms])
        return bytes(holder).decode()


def machine() -> str:
    """Names what process ids are unique in: this boot of this machine and its namespace of processes."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        # No such files outside of Linux: then a lease is free only when it has run out.
        parts.append(secrets.token_hex(8))
    return "/".join(parts)


def is_dead(token: str) -> bool:
    """Whether a holder is certainly gone: a process of this machine that no longer exists."""
    match = _TOKEN.fullmatch(token)
    if match is None or match["machine"] != machine():
        return False
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def is_full(error: ResponseError) -> bool:
    """Whether the server refused to write because it has no memory left; it reads and deletes still."""
    # Before 7.0 the error of a script carries the reason somewhere inside.
    return isinstance(error, OutOfMemoryError) or "-OOM " in str(error)
