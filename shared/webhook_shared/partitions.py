"""The streams that events are spread over, and which of them an event belongs to.

One stream is one slot, so one server of a Cluster; more of them spread the work. All events of one source
(tenant and tool) share a stream: whatever makes two deliveries the same one, an id in a header or what is
signed, they meet in one slot, where one script recognises them (docs/adr/0006-any-redis.md).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

MOST = 64
_NUMBERS = 2**31


class Partitions:
    """The streams that are published to.

    Args:
        stream: What they are called together: "webhook-events", which is the only one's own name.
        count: How many.
    """

    def __init__(self, stream: str, count: int = 1) -> None:
        self.streams = (stream,) if count == 1 else tuple(numbered(stream, i) for i in range(count))

    def stream_of(self, tenant: str, tool: str) -> str:
        """Where the events of a source go."""
        if len(self.streams) == 1:
            return self.streams[0]
        return self.streams[place(tenant, tool, len(self.streams))]


def numbered(stream: str, number: int) -> str:
    """The name of one of several partitions."""
    return f"{stream}:{number}"


def possible(stream: str) -> tuple[str, ...]:
    """Every stream that may hold events, whatever the number of partitions was when they came."""
    return (stream, *(numbered(stream, i) for i in range(MOST)))


@lru_cache(maxsize=4096)
def place(tenant: str, tool: str, count: int) -> int:
    """Which of `count` partitions a source has.

    The jump hash of Lamping and Veach: one more partition moves one in `count` + 1 sources, and only to
    the new one.
    """
    name = f"{len(tenant)}:{tenant}{tool}".encode("utf-8", "surrogatepass")
    state = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    found, following = -1, 0
    while following < count:
        found = following
        state = (state * 2862933555777941757 + 1) % 2**64
        following = int((found + 1) * (_NUMBERS / ((state >> 33) + 1)))
    return found
