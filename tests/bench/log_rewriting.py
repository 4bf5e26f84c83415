"""A server whose append-only file has been rewritten, so that it does not do so while it is measured."""

from __future__ import annotations

import asyncio

from webhook_shared.redis import Client

POLL_S = 0.1


async def rewritten(client: Client) -> None:
    """Have the server rewrite its append-only file now, where it has one.

    By itself it would do so when the file has doubled, a second or two into what is measured next, and be
    half as fast meanwhile.
    """
    if not (await client.info("persistence"))["aof_enabled"]:
        return
    while await _is_rewriting(client):
        await asyncio.sleep(POLL_S)
    await client.bgrewriteaof()
    while await _is_rewriting(client):
        await asyncio.sleep(POLL_S)


async def _is_rewriting(client: Client) -> bool:
    state = await client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])
