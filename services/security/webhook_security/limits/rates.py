"""Rates: how much of each source, tool and tenant is let in per second, counted once for all replicas.

Only what has proved who it is counts, so nobody uses up another's rate by guessing at its door.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import structlog
from webhook_shared.redis import Client, RedisError, Script

from webhook_security import metrics
from webhook_security.case import Case
from webhook_security.registry.sources import Source
from webhook_security.settings import SecuritySection

log = structlog.get_logger()

LONGEST_WAIT_S = 0.5
"""A batch waits no longer than this to be counted, seconds."""

BREATHER_S = 1.0
"""For so long nothing is counted after a failure, so that an outage is waited for once and not per batch."""

ACTIVE_S = 60.0
"""A source that has sent within this time has a share of the global rate kept for it, seconds."""

SHAPE, REJECT = "shape", "reject"

_KEY = "rate:{limits}"
"""The tag keeps all buckets in one slot: one script takes from several of them."""

_LIMITS = ("", "global", "tool", "tenant")
_MICROSECONDS = 1_000_000


class Excess(NamedTuple):
    """A delivery that is to be refused.

    Attributes:
        case: It.
        retry_after_s: When there is room again.
    """

    case: Case
    retry_after_s: float


class Limits:
    """Takes a token per delivery from buckets in Redis, one script call per batch.

    Exact over all replicas: a bucket holds `rate_limit_burst` of its rate and never gives out more. Where
    Redis can't be asked everything passes; a limit must not become an outage.

    Args:
        client: Where the buckets are.
        security: The rates, and what becomes of what is over them.
        clock: Seconds, monotonic; for the breather after a failure.
    """

    def __init__(
        self, client: Client, security: SecuritySection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._tools = security.per_tool_rate_limits
        self._tenants = security.per_tenant_rate_limits
        fill_us = round(security.rate_limit_burst.total_seconds() * _MICROSECONDS)
        self._head = (round(ACTIVE_S * _MICROSECONDS), fill_us, security.global_rate_limit)
        self._clock = clock
        self._blind_until_s = float("-inf")
        self._blind = False
        self._take = Script.load("webhook_security", "take")

    async def exceeded(self, cases: Sequence[Case]) -> list[Excess]:
        """Count a batch. What is over a limit is marked as shaped, or comes back to be refused.

        Args:
            cases: Proved, with a source each.
        """
        groups = _groups(cases)
        if not groups or self._clock() < self._blind_until_s:
            return []
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                counted = await self._count(groups)
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            return []
        self._seen()
        return [
            excess
            for (source, group), answer in zip(groups.items(), counted, strict=True)
            for excess in self._over(source, group, *answer)
        ]

    async def _count(self, groups: dict[Source, list[Case]]) -> list[tuple[int, int, int]]:
        keys = [f"{_KEY}:active", f"{_KEY}:global"]
        args = list(self._head)
        for source, group in groups.items():
            tenant = source.tenant
            keys += (
                f"{_KEY}:share:{tenant}/{source.label}",
                f"{_KEY}:tool:{tenant}/{source.tool}",
                f"{_KEY}:tenant:{tenant}",
            )
            args += (len(group), self._tools.get(source.tool, 0), self._tenants.get(tenant, 0))
        answer = await self._take(self._client, keys, args)
        return list(zip(answer[::3], answer[1::3], answer[2::3], strict=True))

    def _over(
        self, source: Source, group: Sequence[Case], granted: int, limit: int, wait_ms: int
    ) -> Iterator[Excess]:
        for case in group[granted:]:
            policy = _policy(source, case)
            metrics.over_limit.labels(source.label, _LIMITS[limit], policy).inc()
            if policy == SHAPE:
                case.verdict.shaped = True
            else:
                yield Excess(case, wait_ms / 1000)

    def _lost(self, error: BaseException) -> None:
        metrics.limits_blind.inc()
        self._blind_until_s = self._clock() + BREATHER_S
        if not self._blind:
            self._blind = True
            log.warning(
                "limits.not_counted", error=type(error).__name__, consequence="all that is believed passes"
            )

    def _seen(self) -> None:
        if self._blind:
            self._blind = False
            log.info("limits.counted_again")


def _policy(source: Source, case: Case) -> str:
    if source.row.over_limit:
        return source.row.over_limit
    # Whoever has a credential of ours reads the answer; a sender that never retries loses the event.
    return REJECT if case.is_producer or source.row.sender.retries else SHAPE


def _groups(cases: Sequence[Case]) -> dict[Source, list[Case]]:
    groups: dict[Source, list[Case]] = {}
    for case in cases:
        source = case.source
        assert source is not None
        group = groups.get(source)
        if group is None:
            groups[source] = [case]
        else:
            group.append(case)
    return groups
