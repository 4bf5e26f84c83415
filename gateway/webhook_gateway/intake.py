"""Takes deliveries from every door, in batches: security judges them, the keeper keeps them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog
from webhook_shared.coalesce import Coalescer
from webhook_shared.errors import ServiceError

from webhook_gateway import metrics
from webhook_gateway.outcome import Outcome, Publication, Unavailable
from webhook_gateway.publishing.keeping import Keeper
from webhook_gateway.security_client import MAX_BODY_BYTES, Arrival, SecurityClient

log = structlog.get_logger()

RETRY_AFTER_S = 2.0
# A call costs about as much as ten deliveries. Measured with 64 connections: joining at once, a quarter of
# the batches held four deliveries or fewer; joining at half, none did.
JOINS_AT = 0.5
_SECURITY_MISSING = Unavailable("security", RETRY_AFTER_S)


class Intake:
    """What arrives while a batch is under way leaves as the next one; a lone delivery waits for nobody.

    Sources take turns: one that sends more than we can take makes only itself wait.

    Args:
        security: Judges.
        keeper: Keeps.
        max_items: Most deliveries of one batch.
        in_flight: Most batches under way at once.
        patience_s: A delivery that has waited longer than this for its turn is turned away.
    """

    def __init__(
        self,
        security: SecurityClient,
        keeper: Keeper,
        *,
        max_items: int,
        in_flight: int,
        patience_s: float,
    ) -> None:
        self._security = security
        self._keeper = keeper
        self._patience_s = patience_s
        self._coalescer: Coalescer[Arrival, Outcome] = Coalescer(
            self._flush,
            max_items=max_items,
            in_flight=in_flight,
            max_weight=MAX_BODY_BYTES,
            weigh=_body_bytes,
            joins_at=JOINS_AT,
            lane=_source,
        )

    async def __aenter__(self) -> Self:
        await self._coalescer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._coalescer.__aexit__(kind, error, trace)

    def submit(self, arrival: Arrival) -> asyncio.Future[Outcome]:
        """Take a delivery. Who stops waiting for the future does not stop the delivery."""
        return self._coalescer.submit(arrival)

    async def _flush(self, batch: list[Arrival]) -> Sequence[Outcome]:
        # Turning away who is too late keeps an outage from leaving a queue behind it.
        oldest_s = time.perf_counter() - self._patience_s
        timely = [arrival for arrival in batch if arrival.arrived_s >= oldest_s]
        outcomes = iter(await self._take(timely) if timely else ())
        return [next(outcomes) if arrival.arrived_s >= oldest_s else _SECURITY_MISSING for arrival in batch]

    async def _take(self, batch: list[Arrival]) -> list[Outcome]:
        metrics.batch_size.observe(len(batch))
        try:
            judged = await self._security.admit(batch)
        except ServiceError as error:
            log.warning("admit.failed", reason=error.reason, deliveries=len(batch))
            return [_SECURITY_MISSING] * len(batch)
        publications = [each for each in judged if isinstance(each, Publication)]
        kept = iter(await self._keeper.publish(publications) if publications else ())
        return [next(kept) if isinstance(each, Publication) else each for each in judged]


def _source(arrival: Arrival) -> tuple[str, str]:
    return arrival.tenant, arrival.tool


def _body_bytes(arrival: Arrival) -> int:
    return len(arrival.body)
