"""Leaves a provider alone that is down: after a few failures in a row only one probe at a time gets through.

One breaker per provider and model, in Redis, so that an outage costs all replicas together a handful of
calls. While Redis is away each process counts for itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
from webhook_shared.redis import Client, RedisError, Script

from webhook_intelligence import metrics

log = structlog.get_logger()

FAILURES = 5
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
#: A probe that has not come back by then is lost; the next may go.
PROBE_S = 15.0
PATIENCE_S = 0.5

_BREAKER = Script.load("webhook_intelligence", "breaker")


@dataclass
class Circuit:
    """The same as `breaker.lua`, for the time that Redis is away. Times are those of the running loop."""

    failures: int = 0
    until: float = 0.0

    def ask(self, now: float) -> float:
        """Seconds to stay away; 0: call."""
        if self.until > now:
            return self.until - now
        if self.until:
            self.until = now + PROBE_S
        return 0.0

    def failed(self, now: float) -> float:
        """One more failure; seconds to stay away."""
        self.failures += 1
        if self.failures >= FAILURES:
            pause_s = FIRST_PAUSE_S * 2.0 ** min(self.failures - FAILURES, 30)
            self.until = now + min(LONGEST_PAUSE_S, pause_s)
        return max(0.0, self.until - now)


class Breaker:
    """Of one provider and model."""

    def __init__(self, client: Client | None, provider: str, model: str) -> None:
        """Watch a model.

        Args:
            client: Where replicas share what they know; None: this process alone.
            provider: "openai".
            model: "text-embedding-3-small".
        """
        self._client = client
        self._key = f"ai-breaker:{provider}:{model}"
        self._labels = (provider, model)
        self._circuit = Circuit()

    @property
    def is_wary(self) -> bool:
        """Whether the last call that is known of has failed."""
        return self._circuit.failures > 0

    async def ask(self) -> float:
        """May it be called? 0: yes. Else how long to stay away, seconds. Who gets a yes must report back."""
        found = await self._run("ask")
        return self._circuit.ask(_now()) if found is None else found

    async def failed(self) -> None:
        """It was away, or talked nonsense."""
        pause_s = self._circuit.failed(_now())
        found = await self._run("failed")
        pause_s = pause_s if found is None else found
        metrics.BREAKER_OPEN.labels(*self._labels).set(pause_s > 0)
        if pause_s > 0:
            log.warning(
                "provider.away", provider=self._labels[0], model=self._labels[1], pause_s=round(pause_s, 1)
            )

    async def answered(self) -> None:
        """It answered, if only to refuse."""
        if self._circuit.failures:
            self._circuit = Circuit()
            metrics.BREAKER_OPEN.labels(*self._labels).set(False)
            await self._run("answered")

    async def _run(self, what: str) -> float | None:
        """Ask Redis; None where it is away."""
        if self._client is None:
            return None
        limits = [FAILURES, *(int(s * 1000) for s in (FIRST_PAUSE_S, LONGEST_PAUSE_S, PROBE_S))]
        try:
            async with asyncio.timeout(PATIENCE_S):
                wait_ms, failures = await _BREAKER(self._client, [self._key], [what, *limits])
        except (RedisError, OSError):
            return None
        if what != "failed":
            # What other replicas went through counts here too, so that a good answer clears it.
            self._circuit.failures = max(self._circuit.failures, int(failures)) if failures else 0
        return int(wait_ms) / 1000


def _now() -> float:
    return asyncio.get_running_loop().time()
