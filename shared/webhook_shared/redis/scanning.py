"""Looking through all keys, on whatever form of Redis: for what is done rarely and must miss nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from webhook_shared.redis.client import Client
from webhook_shared.redis.errors import ResponseError

SCANNED_AT_ONCE = 1000
_IN_PATTERN = str.maketrans({one: f"\\{one}" for one in "\\*?[]^"})


def literal(text: str) -> str:
    """A text as part of a pattern, where it stands for itself."""
    return text.translate(_IN_PATTERN)


async def keys_like(client: Client, pattern: str) -> AsyncIterator[list[bytes]]:
    """The keys that match, in portions; some may come twice, what comes to be meanwhile may be missed.

    Raises:
        REDIS_TROUBLE: The rest was not seen.
    """
    cluster = await client.as_cluster()
    if cluster is None:
        async for found in _of_one(lambda command: client.execute_command(*command), pattern):
            yield found
        return
    for master in await cluster.masters():

        async def ask(command: tuple[Any, ...], master: Any = master) -> Any:
            (reply,) = await cluster.at(master, [command])
            if isinstance(reply, ResponseError):
                raise reply
            return reply

        async for found in _of_one(ask, pattern):
            yield found


async def _of_one(ask: Any, pattern: str) -> AsyncIterator[list[bytes]]:
    cursor: Any = 0
    while True:
        cursor, found = await ask(("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE))
        if found:
            yield found
        if not int(cursor):
            return
