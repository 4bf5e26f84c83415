"""How often what a rule of prediction named was used here: measured on real reads, kept in Redis.

Intelligence judges its rules by a trial on names; this record has the last word. A rule that it speaks
against rests. What was counted fades, so that after some days it is tried anew.
"""

from __future__ import annotations

import math

from webhook_shared.redis import Client, Script

from webhook_context.store import keys

HALF_LIFE_MS = 86_400_000
DOUBT_Z = 1.645
"""One-sided doubt of 5 %."""


class RuleRecord:
    """All tenants' rules. Every method raises REDIS_TROUBLE where Redis can't be reached."""

    def __init__(self, client: Client, *, break_even: float) -> None:
        """Keep it.

        Args:
            client: Of Redis.
            break_even: Share of contexts that must be used.
        """
        self._client = client
        self._break_even = break_even
        self._count = Script.load("webhook_context", "prewarm_count")

    async def settle(self, tenant: str, rule: str, *, used: int, unused: int, now_ms: int) -> None:
        """So many contexts that a rule had named were used, or were not."""
        await self._standing(tenant, rule, used, unused, now_ms)

    async def pays(self, tenant: str, rule: str, now_ms: int) -> bool:
        """Whether nothing speaks against a rule, beyond doubt."""
        used, unused = await self._standing(tenant, rule, 0, 0, now_ms)
        return _highest_share(used, used + unused) >= self._break_even

    async def _standing(
        self, tenant: str, rule: str, used: int, unused: int, now_ms: int
    ) -> tuple[float, float]:
        args = [rule, used, unused, now_ms, HALF_LIFE_MS]
        counted = await self._count(self._client, [keys.foreseen_rules(tenant)], args)
        was_used, was_unused = counted.decode().split()
        return float(was_used), float(was_unused)


def _highest_share(used: float, settled: float) -> float:
    """The upper end of Wilson's interval; 1 where nothing is known."""
    if not settled:
        return 1.0
    z2, share = DOUBT_Z * DOUBT_Z, used / settled
    middle = share + z2 / (2 * settled)
    spread = DOUBT_Z * math.sqrt(share * (1 - share) / settled + z2 / (4 * settled * settled))
    return (middle + spread) / (1 + z2 / settled)
