"""When a context moves, and where to: rules without any Redis in them.

```
           untouched for hot_duration          untouched for warm_duration
    HOT ─────────────────────────────▶ WARM ───────────────────────────────▶ COLD
     └──── too small to gain by it: untouched for both, straight to COLD ──────▶
     ▲                                  │ ▲                                    │
     └──── changed, or read so often ───┘ └───────────── read so often ────────┤
     ▲                                                                         │
     └───────────────────────────────── changed ───────────────────────────────┘
```
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from webhook.context.v1.context_pb2 import Tier

TIERS = {"hot": Tier.TIER_HOT, "warm": Tier.TIER_WARM, "cold": Tier.TIER_COLD}
"""By their names in the store."""
HOTTER = {Tier.TIER_COLD: Tier.TIER_WARM, Tier.TIER_WARM: Tier.TIER_HOT}


@dataclass(frozen=True, slots=True)
class Policy:
    """`webhook.context_lifecycle` in the units of the store.

    Attributes:
        hot_ms: How long an untouched context stays hot.
        warm_ms: How long an untouched context stays warm.
        hot_importance: From here on a context stays hot.
        warm_importance: From here on a context stays warm.
        warm_bytes: What has fewer bytes of events takes less room hot than packed in Redis.
        rise_reads: So many reads since it moved bring a context one tier up.
        grace_ms: How long what a move replaced stays.
    """

    hot_ms: int
    warm_ms: int
    hot_importance: float
    warm_importance: float
    warm_bytes: int
    rise_reads: int
    grace_ms: int

    def keeps(self, state: State, target: Tier.ValueType) -> bool:
        """Whether a context does not go down to a tier, whatever its age: too important, or too small."""
        if target == Tier.TIER_HOT:
            return False
        if target == Tier.TIER_WARM and state.tier == Tier.TIER_HOT and self.is_small(state):
            return True
        least = self.hot_importance if target == Tier.TIER_WARM else self.warm_importance
        return state.pinned or state.importance >= least

    def is_small(self, state: State) -> bool:
        """Whether a hot context would not get smaller by being packed."""
        return state.hot_bytes < self.warm_bytes


@dataclass(frozen=True, slots=True)
class State:
    """What the truth says of where a context lies. Times in Unix milliseconds, 0 where there is none.

    Attributes:
        exists: False for what was deleted, which may still leave objects to drop.
        version: Of the context.
        packed_version: Of its pack; differs once the context has changed since.
        accessed_ms: About when it was last read.
        moved_ms: When it came to its tier.
        reads: Since then.
        hot_bytes: Of its events in the hash.
        stored_bytes: Of its pack, as it lies there.
        content_bytes: Of its pack, before compression.
        pointer: The name of its pack.
        drop_ms: When the first of what it has left behind is to be dropped.
    """

    exists: bool
    tier: Tier.ValueType = Tier.TIER_HOT
    version: int = 0
    packed_version: int = 0
    updated_ms: int = 0
    accessed_ms: int = 0
    moved_ms: int = 0
    reads: int = 0
    importance: float = 0.0
    pinned: bool = False
    hot_bytes: int = 0
    stored_bytes: int = 0
    content_bytes: int = 0
    pointer: str = ""
    checksum: str = ""
    drop_ms: int = 0

    @property
    def touched_ms(self) -> int:
        """When anybody last took an interest."""
        return max(self.updated_ms, self.accessed_ms)

    @property
    def lies_bytes(self) -> int:
        """Its events and payloads, as they lie."""
        return self.hot_bytes + self.stored_bytes


class Step(Enum):
    """What is to be done with a context."""

    MOVE = "move"
    DROP = "drop"
    LOOK = "look"
    REST = "rest"


class Plan(NamedTuple):
    """The next step, and when it is due; Unix milliseconds."""

    step: Step
    at_ms: int
    target: Tier.ValueType = Tier.TIER_UNSPECIFIED


def next_step(state: State, policy: Policy, now_ms: int) -> Plan:
    """What is due next for a context; REST where nothing ever is, until somebody touches it."""
    move = _next_move(state, policy, now_ms) if state.exists else Plan(Step.REST, 0)
    if not state.drop_ms:
        return move
    drop = Plan(Step.DROP, state.drop_ms)
    return drop if move.step is Step.REST or drop.at_ms <= move.at_ms else move


def _next_move(state: State, policy: Policy, now_ms: int) -> Plan:
    if state.tier == Tier.TIER_HOT and policy.is_small(state):
        # It has no use for the warm tier: it waits where it is, as long as it would wait there.
        stay_ms = policy.hot_ms + policy.warm_ms
        return _down(state, policy, now_ms, Tier.TIER_COLD, since_ms=state.touched_ms, stay_ms=stay_ms)
    if state.tier == Tier.TIER_HOT:
        return _down(state, policy, now_ms, Tier.TIER_WARM, since_ms=state.touched_ms, stay_ms=policy.hot_ms)
    if state.pinned or state.version != state.packed_version:
        return Plan(Step.MOVE, now_ms, Tier.TIER_HOT)
    if state.reads >= policy.rise_reads:
        return Plan(Step.MOVE, now_ms, HOTTER[state.tier])
    if state.tier == Tier.TIER_COLD:
        return Plan(Step.REST, 0)
    since_ms = max(state.touched_ms, state.moved_ms)
    return _down(state, policy, now_ms, Tier.TIER_COLD, since_ms=since_ms, stay_ms=policy.warm_ms)


def _down(
    state: State, policy: Policy, now_ms: int, target: Tier.ValueType, *, since_ms: int, stay_ms: int
) -> Plan:
    if policy.keeps(state, target):
        return Plan(Step.LOOK, now_ms + stay_ms)
    return Plan(Step.MOVE, since_ms + stay_ms, target)
