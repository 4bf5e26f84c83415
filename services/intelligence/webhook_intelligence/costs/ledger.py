"""Who has spent what: tokens and money by tenant, day, model and purpose, kept in Redis.

A tenant with a budget pays before the call: an estimate is reserved, in one script, and what the provider
then bills takes its place. What is spent is written within a second, in the background; while Redis is away
it waits in this process, and budgets hold by what this process knows.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import structlog
from webhook_shared.errors import ResourceExhausted, Unavailable
from webhook_shared.redis import Client, RedisError, Script
from webhook_shared.tasks import ended

from webhook_intelligence import metrics
from webhook_intelligence.costs.budgets import Budget, Budgets, Spent, take
from webhook_intelligence.costs.prices import NANO, Prices, Usage
from webhook_intelligence.costs.tokens import Calibration

log = structlog.get_logger()

KEPT_FOR_S = 400 * 86_400
CALIBRATION = "ai-calibration"
WRITE_EVERY_S = 1.0
PATIENCE_S = 1.0
# Longer, since without an answer a budget holds only by what this process knows, and the calls that it is for
# take seconds themselves.
RESERVE_PATIENCE_S = 5.0
# More at once would only open connections, and a script is answered in a fraction of a millisecond.
ASKING = 4
MOST_DAYS = 366

_RESERVE = Script.load("webhook_intelligence", "reserve")


@dataclass(frozen=True)
class Payer:
    """Who pays, and what for: "embed", "summarize", "analyze"."""

    tenant: str
    purpose: str


@dataclass(frozen=True)
class Reservation:
    """What was set aside for a call.

    Attributes:
        admitted: Per item whether the budget holds it.
        estimated: Tokens of the admitted items before calibration, to learn from.
    """

    payer: Payer
    model: str
    day: dt.date
    admitted: tuple[bool, ...]
    estimated: Usage
    nano_usd: int
    tokens: int


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    day: dt.date
    model: str
    purpose: str
    usage: Usage
    nano_usd: int


def budget_spent() -> ResourceExhausted:
    """What an item answers that the budget does not hold."""
    return ResourceExhausted(
        "BUDGET_SPENT", "the tenant's budget does not hold this call; see webhook.ai.budget"
    )


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Ledger:
    """The books. Use as an async context manager."""

    def __init__(
        self, client: Client, prices: Prices, budgets: Budgets, *, now: Callable[[], dt.datetime] = _utc_now
    ) -> None:
        self.prices = prices
        self.budgets = budgets
        self.calibration = Calibration()
        self._client = client
        self._now = now
        self._known: dict[str, tuple[dt.date, Spent]] = {}
        self._unwritten: Counter[tuple[str, str]] = Counter()
        self._asking = asyncio.Semaphore(ASKING)
        self._has_work = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write_forever(), name="ledger")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await ended([self._writer] if self._writer else [])
        if not await self.write():
            log.error("ledger.not_written", entries=len(self._unwritten))

    async def reserve(self, payer: Payer, model: str, wanted: Sequence[Usage]) -> Reservation:
        """Set aside what items of one call are expected to cost; an item that does not fit is not admitted.

        Args:
            payer: Whose budget.
            model: Whose prices.
            wanted: Per item, as `tokens.estimate` has it; calibrated here.
        """
        day = self._now().date()
        budget = self.budgets.of(payer.tenant)
        expected = [self.calibration.expected(model, usage) for usage in wanted]
        items = [(self.prices.nano_usd(model, usage), usage.tokens) for usage in expected]
        if not budget.is_limited:
            return Reservation(payer, model, day, (True,) * len(items), _sum(wanted), 0, 0)
        admitted = await self._take(payer.tenant, day, budget, items)
        if refused := len(admitted) - sum(admitted):
            metrics.BUDGET_REFUSALS.labels(payer.purpose).inc(refused)
        taken = [item for item, fits in zip(items, admitted, strict=True) if fits]
        return Reservation(
            payer,
            model,
            day,
            tuple(admitted),
            _sum([usage for usage, fits in zip(wanted, admitted, strict=True) if fits]),
            sum(nano_usd for nano_usd, _ in taken),
            sum(tokens for _, tokens in taken),
        )

    def settle(self, reservation: Reservation, used: Usage, *, answered: bool = True) -> None:
        """Book what a call really took in place of what was set aside.

        Args:
            reservation: From `reserve`; may be settled once.
            used: As billed; nothing where the call failed.
            answered: Whether everything that was admitted was answered, so that the estimate can learn.
        """
        if answered and used.tokens:
            self.calibration.learn(reservation.model, reservation.estimated, used)
        nano_usd = self.prices.nano_usd(reservation.model, used)
        day_key, month_key = _keys(reservation.payer.tenant, reservation.day)
        line = f"{reservation.payer.purpose}|{reservation.model}"
        for key, field, amount in (
            (day_key, "usd", nano_usd - reservation.nano_usd),
            (day_key, "tokens", used.tokens - reservation.tokens),
            (month_key, "usd", nano_usd - reservation.nano_usd),
            (day_key, f"in|{line}", used.input_tokens),
            (day_key, f"out|{line}", used.output_tokens),
            (day_key, f"usd|{line}", nano_usd),
        ):
            if amount:
                self._unwritten[key, field] += amount
        if self._unwritten:
            self._has_work.set()
        self._correct(reservation, nano_usd, used)
        metrics.SPENT_USD.labels(reservation.model, reservation.payer.purpose).inc(nano_usd / NANO)

    async def spent(self, tenant: str) -> Spent:
        """What is gone of a tenant's budget, as Redis has it.

        Raises:
            Unavailable: LEDGER_UNREACHABLE.
        """
        day = self._now().date()
        day_key, month_key = _keys(tenant, day)
        try:
            async with asyncio.timeout(PATIENCE_S), self._client.pipeline(transaction=False) as pipeline:
                pipeline.hmget(day_key, ["usd", "tokens"])
                pipeline.hget(month_key, "usd")
                (usd, tokens), month = await pipeline.execute()
        except (RedisError, OSError):
            raise _unreachable() from None
        # What has not been written yet is gone as well.
        mine = self._unwritten
        return Spent(
            int(usd or 0) + mine[day_key, "usd"],
            int(month or 0) + mine[month_key, "usd"],
            int(tokens or 0) + mine[day_key, "tokens"],
        )

    async def entries(self, tenant: str, days: int) -> list[Entry]:
        """The lines of the last days, today included, newest first.

        Raises:
            Unavailable: LEDGER_UNREACHABLE.
        """
        await self.write()
        today = self._now().date()
        wanted = [today - dt.timedelta(days=back) for back in range(days)]
        try:
            async with asyncio.timeout(PATIENCE_S), self._client.pipeline(transaction=False) as pipeline:
                for day in wanted:
                    pipeline.hgetall(_keys(tenant, day)[0])
                found = await pipeline.execute()
        except (RedisError, OSError):
            raise _unreachable() from None
        return [entry for day, fields in zip(wanted, found, strict=True) for entry in _lines(day, fields)]

    async def write(self) -> bool:
        """Write what waits; False where Redis is away and it goes on waiting."""
        writing, self._unwritten = self._unwritten, Counter()
        try:
            async with asyncio.timeout(PATIENCE_S), self._client.pipeline(transaction=False) as pipeline:
                for (key, field), amount in writing.items():
                    pipeline.hincrby(key, field, amount)
                for key in {key for key, _ in writing}:
                    pipeline.expire(key, KEPT_FOR_S)
                if learned := self.calibration.take_changed():
                    pipeline.hset(CALIBRATION, mapping={name: repr(value) for name, value in learned.items()})
                await pipeline.execute()
        except (RedisError, OSError):
            # Perhaps some of it was written; to count it twice is the safe side.
            self._unwritten.update(writing)
            return False
        except BaseException:
            self._unwritten.update(writing)
            raise
        return True

    async def _take(
        self, tenant: str, day: dt.date, budget: Budget, items: list[tuple[int, int]]
    ) -> list[bool]:
        flat = [amount for item in items for amount in item]
        try:
            async with self._asking, asyncio.timeout(RESERVE_PATIENCE_S):
                reply = await _RESERVE(self._client, _keys(tenant, day), [*budget.limits, KEPT_FOR_S, *flat])
        except (RedisError, OSError):
            known_day, known = self._known.get(tenant, (day, Spent()))
            if known_day != day:
                known = Spent(0, known.month if known_day.month == day.month else 0, 0)
            admitted, spent = take(budget, known, items)
            self._remember(tenant, day, spent)
            day_key, month_key = _keys(tenant, day)
            self._unwritten[day_key, "usd"] += spent.day - known.day
            self._unwritten[day_key, "tokens"] += spent.tokens - known.tokens
            self._unwritten[month_key, "usd"] += spent.month - known.month
            return admitted
        self._remember(tenant, day, Spent(int(reply[0]), int(reply[1]), int(reply[2])))
        return [bool(fits) for fits in reply[3:]]

    def _remember(self, tenant: str, day: dt.date, spent: Spent) -> None:
        # Only tenants with a budget stand here; there are as many as the configuration and the keys name.
        self._known[tenant] = (day, spent)

    def _correct(self, reservation: Reservation, nano_usd: int, used: Usage) -> None:
        known = self._known.get(reservation.payer.tenant)
        if known is not None and known[0] == reservation.day:
            more = known[1].more(nano_usd - reservation.nano_usd, used.tokens - reservation.tokens)
            self._known[reservation.payer.tenant] = (known[0], more)

    async def _write_forever(self) -> None:
        await self._load_calibration()
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            await asyncio.sleep(WRITE_EVERY_S)
            try:
                if not await self.write():
                    self._has_work.set()
            except Exception:
                log.exception("ledger.failed")
                self._has_work.set()

    async def _load_calibration(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                stored: Any = await self._client.hgetall(CALIBRATION)
        except (RedisError, OSError):
            return  # it learns anew
        self.calibration.restore({name.decode(): value.decode() for name, value in stored.items()})


def _keys(tenant: str, day: dt.date) -> tuple[str, str]:
    return f"ai-spending:{{{tenant}}}:{day:%Y-%m-%d}", f"ai-spending:{{{tenant}}}:{day:%Y-%m}"


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(sum(u.input_tokens for u in usages), sum(u.output_tokens for u in usages))


def _lines(day: dt.date, fields: dict[bytes, bytes]) -> list[Entry]:
    amounts: dict[tuple[str, str], dict[str, int]] = {}
    for name, value in fields.items():
        what, _, line = name.decode().partition("|")
        purpose, _, model = line.partition("|")
        if model:
            amounts.setdefault((model, purpose), {})[what] = int(value)
    return [
        Entry(day, model, purpose, Usage(found.get("in", 0), found.get("out", 0)), found.get("usd", 0))
        for (model, purpose), found in sorted(amounts.items())
    ]


def _unreachable() -> Unavailable:
    return Unavailable("LEDGER_UNREACHABLE", "the ledger can't be read now")
