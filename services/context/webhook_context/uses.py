"""What was used of late, until it is reported: bounded, in memory, lost where it does not fit.

Whoever serves a call only notes; what is noted is taken away in the background.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import ServiceError

from webhook_context import metrics
from webhook_context.domain.contexts import AsOf, Context, Link

MOST_READS = 4096
MOST_TENANTS = 64
MOST_IN_USE = 64
"""Of one tenant in one report: what `Predict` takes."""


@dataclass(frozen=True, slots=True)
class Read:
    """One context that somebody was given. `served` is where it was read, `at_s` Unix time."""

    tenant: str
    context_id: str
    actor: str
    at_s: float
    served: Tier.ValueType
    links: dict[Link, AsOf]


@dataclass(slots=True)
class Used:
    """All that was used of one tenant since the last report.

    Attributes:
        reads: In the order in which they happened.
        gone: Deleted since.
        in_use: Read or changed, at most MOST_IN_USE, each once.
    """

    reads: list[Read] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    in_use: dict[str, None] = field(default_factory=dict)


class Uses:
    """Notes uses and gives them away; nothing is noted where nobody asks."""

    def __init__(self, *, is_kept: bool = True) -> None:
        self._is_kept = is_kept
        self._reads: deque[Read] = deque()
        self._gone: deque[tuple[str, str]] = deque(maxlen=MOST_READS)
        self._changed: dict[str, dict[str, None]] = {}

    def read(self, tenant: str, actor: str, found: Iterable[Context | ServiceError | None]) -> None:
        """Contexts were given to somebody. The oldest note goes where there are too many."""
        if not self._is_kept:
            return
        at_s = time.time()
        for one in found:
            if isinstance(one, Context):
                if len(self._reads) >= MOST_READS:
                    self._reads.popleft()
                    metrics.PREWARM_REPORTS.labels("dropped").inc()
                self._reads.append(Read(tenant, one.context_id, actor, at_s, one.served, one.facts.links))

    def changed(self, wheres: Iterable[tuple[str, str]]) -> None:
        """Contexts (tenant, id) got events. These are observed where they are understood, not here."""
        if not self._is_kept:
            return
        for tenant, context_id in wheres:
            changed = self._changed.get(tenant)
            if changed is None:
                if len(self._changed) >= MOST_TENANTS:
                    continue
                changed = self._changed[tenant] = {}
            if len(changed) < MOST_IN_USE:
                changed[context_id] = None

    def gone(self, tenant: str, context_id: str) -> None:
        """A context was deleted."""
        if self._is_kept:
            self._gone.append((tenant, context_id))

    def take(self) -> dict[str, Used]:
        """All that was noted, by tenant; it is not noted any more."""
        found: dict[str, Used] = {}
        reads, self._reads = self._reads, deque()
        for read in reads:
            found.setdefault(read.tenant, Used()).reads.append(read)
        while self._gone:
            tenant, context_id = self._gone.popleft()
            found.setdefault(tenant, Used()).gone.append(context_id)
        changed, self._changed = self._changed, {}
        for tenant, ids in changed.items():
            found.setdefault(tenant, Used()).in_use |= ids
        for used in found.values():
            _note_newest(used.in_use, used.reads)
        return found


def _note_newest(in_use: dict[str, None], reads: Sequence[Read]) -> None:
    for read in reversed(reads):
        if len(in_use) >= MOST_IN_USE:
            return
        in_use[read.context_id] = None
