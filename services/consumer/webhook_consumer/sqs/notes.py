"""What SQS can't count, kept in Redis beside: how often a message failed, and came back in good order."""

from __future__ import annotations

from collections.abc import Sequence

from webhook_shared.redis import Client

# SQS keeps no message for longer, so no note is needed for longer.
KEPT_FOR_S = 14 * 86_400


class Notes:
    """Notes on the messages of one queue, by SQS's id. Every method raises one of QUEUE_TROUBLE.

    Args:
        redis: Where.
        stream: Whose slot they are in.
    """

    def __init__(self, redis: Client, stream: str) -> None:
        self._redis = redis
        self._stream = stream

    async def read(self, message_ids: Sequence[str]) -> list[tuple[int, int]]:
        """How often each failed, and how often it came back in good order; in order."""
        if not message_ids:
            return []
        async with self._redis.pipeline(transaction=False) as together:
            for message_id in message_ids:
                together.hmget(self._key(message_id), ["failures", "in_order"])
            rows = await together.execute()
        return [(int(failures or 0), int(in_order or 0)) for failures, in_order in rows]

    async def came_back(self, messages: Sequence[tuple[str, int]]) -> None:
        """Note that messages come back in good order, after so many failures each."""
        if not messages:
            return
        async with self._redis.pipeline(transaction=False) as together:
            for message_id, failures in messages:
                key = self._key(message_id)
                together.hset(key, "failures", str(failures))
                together.hincrby(key, "in_order", 1)
                together.expire(key, KEPT_FOR_S)
            await together.execute()

    async def accuse(self, message_id: str) -> int:
        """Note that a suspect is about to be started alone. Returns how often that has been noted."""
        key = self._key(message_id)
        count = await self._redis.hincrby(key, "accusations", 1)
        await self._redis.expire(key, KEPT_FOR_S)
        return int(count)

    async def acquit(self, message_id: str) -> None:
        """Forget that."""
        await self._redis.hdel(self._key(message_id), "accusations")

    async def forget(self, message_ids: Sequence[str]) -> None:
        """Forget all."""
        for message_id in message_ids:
            await self._redis.delete(self._key(message_id))

    def _key(self, message_id: str) -> str:
        return f"sqs:{{{self._stream}}}:{message_id}"
