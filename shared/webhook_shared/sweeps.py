"""Work that is due now and then, and that one process does for all."""

from __future__ import annotations

import asyncio
import random

from webhook_shared.redis import Client

LOOK_S = 60.0
"""How often to see whether it is due."""


async def my_turn(client: Client, turn: str, every_s: float) -> bool:
    """Wait a while; whether the work is due then, and this process is the one to do it.

    Args:
        client: Of the Redis that all of them share.
        turn: The key that is the turn, see `takes`.
        every_s: How often the work is due.

    Raises:
        REDIS_TROUBLE: It is nobody's turn for now.
    """
    spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreads load; guards nothing
    await asyncio.sleep(min(LOOK_S, every_s) * spread)
    return await takes(client, turn, every_s)


async def takes(client: Client, turn: str, for_s: float) -> bool:
    """Whether the turn is this process's: who makes the key has it for so long, or until it is deleted.

    Raises:
        REDIS_TROUBLE: It is nobody's turn for now.
    """
    return bool(await client.set(turn, b"1", nx=True, px=max(int(for_s * 1000), 1)))
