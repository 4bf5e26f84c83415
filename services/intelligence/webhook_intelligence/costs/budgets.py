"""What tenants may spend, and the arithmetic of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from webhook_intelligence.costs.prices import NANO


@dataclass(frozen=True)
class Budget:
    """The most that a tenant may spend; 0: no limit. Days and months are those of UTC."""

    daily_usd: float = 0.0
    monthly_usd: float = 0.0
    daily_tokens: int = 0

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return bool(self.daily_usd or self.monthly_usd or self.daily_tokens)

    @property
    def limits(self) -> tuple[int, int, int]:
        """Nano-USD of a day, of a month, tokens of a day."""
        return round(self.daily_usd * NANO), round(self.monthly_usd * NANO), self.daily_tokens


@dataclass(frozen=True)
class Budgets:
    """The budget of each tenant."""

    default: Budget = Budget()
    tenants: Mapping[str, Budget] | None = None

    def of(self, tenant: str) -> Budget:
        """What holds for a tenant."""
        return (self.tenants or {}).get(tenant, self.default)


@dataclass(frozen=True)
class Spent:
    """What is gone, reservations included: nano-USD of today, of this month, tokens of today."""

    day: int = 0
    month: int = 0
    tokens: int = 0

    def holds(self, budget: Budget, nano_usd: int, tokens: int) -> bool:
        """Whether a budget has room for so much more."""
        day, month, most_tokens = budget.limits
        return (
            (not day or self.day + nano_usd <= day)
            and (not month or self.month + nano_usd <= month)
            and (not most_tokens or self.tokens + tokens <= most_tokens)
        )

    def more(self, nano_usd: int, tokens: int) -> Spent:
        """With so much more gone."""
        return Spent(self.day + nano_usd, self.month + nano_usd, self.tokens + tokens)


def take(budget: Budget, spent: Spent, items: Sequence[tuple[int, int]]) -> tuple[list[bool], Spent]:
    """The same as `reserve.lua`, for the time that Redis is away."""
    admitted = []
    for nano_usd, tokens in items:
        fits = spent.holds(budget, nano_usd, tokens)
        if fits:
            spent = spent.more(nano_usd, tokens)
        admitted.append(fits)
    return admitted, spent
