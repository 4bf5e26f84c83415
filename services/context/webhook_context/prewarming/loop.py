"""Reports what is used to intelligence, asks what comes next, and has it brought near.

All of it in the background: a read only leaves a note. Where intelligence is away, notes are lost and
nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import ServiceError
from webhook_shared.redis import Backoff

from webhook_context import metrics
from webhook_context.intelligence_client import IntelligenceClient
from webhook_context.prewarming.promotion import Promotion
from webhook_context.uses import MOST_IN_USE, Read, Uses

log = structlog.get_logger()

LONGEST_SILENCE_S = 30.0
OFF_REST_S = 60.0
ROUNDS_ASKED = 8
"""For so many rounds it is asked what follows a use."""


class Prewarming:
    """The loop of one process.

    Args:
        uses: What is noted.
        intelligence: Learns and foresees.
        promotion: Moves contexts.
        tenants: All of them.
        report_s: How often to report.
        check_s: How often to look for what has waited too long.
    """

    def __init__(
        self,
        uses: Uses,
        intelligence: IntelligenceClient,
        promotion: Promotion,
        tenants: Callable[[], Awaitable[Sequence[str]]],
        *,
        report_s: float,
        check_s: float,
    ) -> None:
        self._uses = uses
        self._intelligence = intelligence
        self._promotion = promotion
        self._tenants = tenants
        self._report_s = report_s
        self._check_s = check_s
        self._in_use: deque[dict[str, dict[str, None]]] = deque(maxlen=ROUNDS_ASKED)

    async def run(self) -> None:
        """Report and ask, through every outage of Redis and of intelligence."""
        backoff = Backoff(base_s=self._report_s, cap_s=LONGEST_SILENCE_S)
        is_away = False
        while True:
            await asyncio.sleep(self._report_s)
            try:
                await self.report()
                backoff.reset()
                is_away = False
            except ServiceError as error:
                if error.reason == "PREWARMING_OFF":
                    await asyncio.sleep(OFF_REST_S)
                    continue
                if not is_away:
                    log.warning("prewarming.intelligence_away", reason=error.reason)
                is_away = True
                await backoff.wait()
            except Exception as error:  # noqa: BLE001  # whatever it is, the reporting goes on
                log.warning("prewarming.interrupted", error=type(error).__name__)
                await backoff.wait()

    async def withdraw(self) -> None:
        """Take back what was not used, through every outage of Redis."""
        backoff = Backoff()
        while True:
            await asyncio.sleep(self._check_s)
            try:
                await self._promotion.withdraw(await self._tenants())
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, the looking goes on
                log.warning("prewarming.not_withdrawn", error=type(error).__name__)
                await backoff.wait()

    async def report(self) -> None:
        """One round: what was used since the last one, and what follows from what was used in those before.

        Intelligence learns a moment after it was told: by then it knows what a context is tied to.

        Raises:
            ServiceError: Intelligence refuses or is away; what was to be reported is lost.
            REDIS_TROUBLE: So it is.
        """
        taken = self._uses.take()
        before = _together(self._in_use)
        self._in_use.append({tenant: used.in_use for tenant, used in taken.items() if used.in_use})
        left = sum(len(used.reads) for used in taken.values())
        try:
            for tenant, in_use in before.items():
                await self._promotion.promote(tenant, await self._intelligence.predict(tenant, in_use))
            for tenant, used in taken.items():
                touched = dict.fromkeys(read.context_id for read in used.reads) | used.in_use
                ours = await self._promotion.use(tenant, list(touched))
                _count(used.reads, ours)
                await self._intelligence.observe(tenant, used)
                metrics.PREWARM_REPORTS.labels("reported").inc(len(used.reads))
                left -= len(used.reads)
        finally:
            metrics.PREWARM_REPORTS.labels("dropped").inc(left)


def _together(rounds: Iterable[dict[str, dict[str, None]]]) -> dict[str, list[str]]:
    """What was in use, by tenant, of each the latest."""
    found: dict[str, dict[str, None]] = {}
    for one in rounds:
        for tenant, in_use in one.items():
            known = found.setdefault(tenant, {})
            for context_id in in_use:
                known.pop(context_id, None)
                known[context_id] = None
    return {tenant: list(in_use)[-MOST_IN_USE:] for tenant, in_use in found.items()}


def _count(reads: Sequence[Read], ours: set[str]) -> None:
    for read in reads:
        if read.context_id in ours:
            ours.discard(read.context_id)
            metrics.PREWARM_READS.labels("saved").inc()
        else:
            metrics.PREWARM_READS.labels("missed" if read.served == Tier.TIER_COLD else "hit").inc()
