"""How long a queue is waited for, whichever it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from webhook_shared.redis import Backoff

from webhook_gateway import metrics
from webhook_gateway.outcome import Publication, Published, Unavailable

Attempt = Callable[[Sequence[Publication]], Awaitable[list[Published]]]


class Patience:
    """Knows since when a queue has been missed.

    Args:
        lasts_s: How long it may be away before a publication fails, counted from when it was first missed:
            in a long outage every batch is tried once and does not wait.
    """

    def __init__(self, lasts_s: float) -> None:
        self.lasts_s = lasts_s
        self._missed_at_s: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the queue has been missed for longer than this lasts, and not been seen since."""
        return self._missed_at_s is not None and time.monotonic() - self._missed_at_s >= self.lasts_s

    def missed(self) -> bool:
        """The queue did not answer. Whether this is the first time since it was seen."""
        if self._missed_at_s is not None:
            return False
        self._missed_at_s = time.monotonic()
        return True

    def seen(self) -> None:
        """The queue is there."""
        self._missed_at_s = None

    def assume_missing(self) -> None:
        """The queue has not been there since we began."""
        self._missed_at_s = float("-inf")

    async def insist(
        self, attempt: Attempt, publications: Sequence[Publication], missing: Unavailable, backoff: Backoff
    ) -> list[Published]:
        """Attempt, and again what is `missing`, until all are there or this is over; in order."""
        results = await attempt(publications)
        started_s = time.monotonic()
        while missing in results and await self._comes_to_another(backoff, started_s):
            open_ = [at for at, result in enumerate(results) if result is missing]
            again = await attempt([publications[at] for at in open_])
            for at, result in zip(open_, again, strict=True):
                results[at] = result
        return results

    async def _comes_to_another(self, backoff: Backoff, started_s: float) -> bool:
        """Wait until another attempt is due; False where this is over by then."""
        delay_s = backoff.next_delay_s()
        since_s = min(started_s, self._missed_at_s if self._missed_at_s is not None else started_s)
        if time.monotonic() - since_s + delay_s >= self.lasts_s:
            return False
        metrics.publish_repeats.inc()
        await asyncio.sleep(delay_s)
        return True
