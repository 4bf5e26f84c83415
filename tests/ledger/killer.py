"""Ends processes with SIGKILL in the middle of the load, in an order and at moments that a seed decides."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from webhook_ops.dev.system import System
from webhook_shared.redis import REDIS_TROUBLE, connect

VICTIMS = ("gateway", "security", "consumer", "intelligence", "context", "redis")
#: So that a kill does not always meet the moment after an answer.
LONGEST_HESITATION_S = 0.03
#: Whose death is worst right after it has written an event, before it has answered for it.
ANSWERS = "gateway"
NEXT_EVENT_WITHIN_S = 0.5
STREAM = "webhook-events"


class Killer:
    """Kills one process per wave of deliveries, once so many of the wave are acknowledged.

    Args:
        system: Restarts what was killed.
        dice: Decides about order and moments.
    """

    def __init__(self, system: System, dice: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self._system = system
        self._dice = dice
        self._victim = ""
        self._acknowledgements_left = 0
        self._strike: asyncio.Task[None] | None = None

    def victims(self, rounds: int) -> Sequence[str]:
        """Each process so often, in random order."""
        victims = list(VICTIMS) * rounds
        self._dice.shuffle(victims)
        return victims

    async def aim(self, victim: str, wave: int) -> None:
        """Choose who falls during the next wave, and when; what still starts is let come up first."""
        if self._strike is not None:
            await self._strike
        await self._system.healthy(victim)
        self._victim, self._acknowledgements_left = victim, self._dice.randrange(1, wave + 1)

    def acknowledged(self) -> None:
        """One more delivery of the wave has been acknowledged."""
        self._acknowledgements_left -= 1
        if self._acknowledgements_left == 0:
            self._strike = asyncio.create_task(self._kill(self._victim))

    async def _kill(self, victim: str) -> None:
        if victim == ANSWERS:
            await self._next_event()
        else:
            await asyncio.sleep(self._dice.uniform(0, LONGEST_HESITATION_S))
        self._system.kill(victim)
        self.kills[victim] += 1

    async def _next_event(self) -> None:
        """Wait until an event has just been written, if one is."""
        client = connect(self._system.plan.redis, block_s=NEXT_EVENT_WITHIN_S)
        try:
            await client.xread({STREAM: "$"}, block=round(NEXT_EVENT_WITHIN_S * 1000))
        except REDIS_TROUBLE:
            # It may have been the last victim.
            await asyncio.sleep(self._dice.uniform(0, LONGEST_HESITATION_S))
        finally:
            await client.aclose()

    async def finished(self) -> None:
        """Wait until the last victim has fallen."""
        if self._strike is not None:
            await self._strike
