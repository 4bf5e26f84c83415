"""Which of several deliveries of one event counts, where publishing and claiming can't be one step.

A stream takes an event and its claim atomically; SQS can't. So the claim comes last, when the event is in
the queue: by the gateway before it answers, and again by the consumer before the event has any effect. The
first id to claim counts, whoever claims for it; a message whose id does not count is dropped. Whatever dies
in between, no claim stands for an event that is nowhere, and no two ids of one delivery both have an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from webhook_shared.redis import Client, Script

_IN_CONFLICT = "!"
_RENAMED = "~"


class Claim(NamedTuple):
    """What deliveries of one event have in common.

    Attributes:
        record: The Redis key that they share: "dedup:{webhook-events}:<key>".
        occurrences: How many ids may count.
        window_ms: For how long the first one keeps others away.
        digest: Tells bodies apart; empty where they are not compared.
        echo: As `record`, of what is signed; empty where there is none.
        echo_window_ms: As `window_ms`, of that.
    """

    record: str
    occurrences: int
    window_ms: int
    digest: str = ""
    echo: str = ""
    echo_window_ms: int = 0


class Standing(NamedTuple):
    """How an event stands among the deliveries of its kind.

    Attributes:
        repeats: The id of the event that it repeats; empty where it counts itself.
        renamed: It came under another delivery id than that one.
        conflict_of: The first event of its key, where both count as their bodies differ.
    """

    repeats: str = ""
    renamed: bool = False
    conflict_of: str = ""


class Claims:
    """The claims in one Redis. Every method raises REDIS_TROUBLE or RedisError."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._script = Script.load("webhook_shared", "same_delivery", "claim")

    async def look(self, claims: Sequence[tuple[str, Claim]]) -> list[Standing]:
        """How events, by id, would stand now; in order."""
        return await self._run(claims, "look")

    async def claim(self, claims: Sequence[tuple[str, Claim]]) -> list[Standing]:
        """How events, by id, stand from now on; in order."""
        return await self._run(claims, "claim")

    async def _run(self, claims: Sequence[tuple[str, Claim]], how: str) -> list[Standing]:
        calls = [
            (
                (claim.record, claim.echo) if claim.echo else (claim.record,),
                (
                    event_id,
                    max(1, claim.occurrences),
                    max(1, claim.window_ms),
                    claim.digest,
                    max(1, claim.echo_window_ms),
                    how,
                ),
            )
            for event_id, claim in claims
        ]
        replies = await self._script.batch(self._redis, calls)
        return [_standing(reply) for reply in replies]


def _standing(reply: bytes | Exception) -> Standing:
    if isinstance(reply, Exception):
        raise reply
    text = reply.decode("ascii", "replace")
    if text.startswith(_IN_CONFLICT):
        return Standing(conflict_of=text[1:])
    return Standing(repeats=text.removeprefix(_RENAMED), renamed=text.startswith(_RENAMED))
