"""What tokens cost. Money is whole billionths of a US dollar: a token of the cheapest model costs several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NANO = 1_000_000_000
_NANO_PER_TOKEN = 1000  # of a price of 1 US dollar per million tokens


@dataclass(frozen=True)
class Usage:
    """Tokens sent to a model and made by it."""

    input_tokens: int
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Both."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


NOTHING = Usage(0)


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input_usd: float
    output_usd: float = 0.0


#: List prices as their providers published them; `webhook.ai.prices` overrides them.
LISTED: Mapping[str, Price] = {
    "text-embedding-3-small": Price(0.02),
    "text-embedding-3-large": Price(0.13),
    "text-embedding-ada-002": Price(0.10),
    "gpt-4-turbo": Price(10.0, 30.0),
    "gpt-4o": Price(2.5, 10.0),
    "gpt-4o-mini": Price(0.15, 0.6),
}


class Prices:
    """Which model costs what."""

    def __init__(self, own: Mapping[str, Price], *, free: frozenset[str] = frozenset()) -> None:
        """Use a list.

        Args:
            own: Over the listed ones.
            free: Models that run here.
        """
        self._prices = {**LISTED, **own}
        self._free = free

    def knows(self, model: str) -> bool:
        """Whether there is a price; what has none counts as free."""
        return model in self._free or model in self._prices

    def nano_usd(self, model: str, usage: Usage) -> int:
        """What so many tokens cost."""
        price = self._prices.get(model)
        if model in self._free or price is None:
            return 0
        usd = usage.input_tokens * price.input_usd + usage.output_tokens * price.output_usd
        return round(usd * _NANO_PER_TOKEN)
