"""When a context moves: rules alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from webhook.context.v1.context_pb2 import Tier
from webhook_context.domain.lifecycle import Plan, Policy, State, Step, next_step

HOT, WARM, COLD = Tier.TIER_HOT, Tier.TIER_WARM, Tier.TIER_COLD
NOW = 1_000_000
POLICY = Policy(
    hot_ms=1000,
    warm_ms=5000,
    hot_importance=0.8,
    warm_importance=0.5,
    warm_bytes=4096,
    rise_reads=2,
    grace_ms=100,
)
AS_IT_IS = State(
    exists=True, version=3, packed_version=3, updated_ms=NOW - 400, moved_ms=NOW - 300, hot_bytes=5000
)


@pytest.mark.parametrize(
    ("changed", "plan"),
    [
        ({}, Plan(Step.MOVE, NOW + 600, WARM)),
        ({"accessed_ms": NOW - 100}, Plan(Step.MOVE, NOW + 900, WARM)),
        ({"importance": 0.8}, Plan(Step.LOOK, NOW + 1000)),
        ({"pinned": True}, Plan(Step.LOOK, NOW + 1000)),
        ({"importance": 0.79}, Plan(Step.MOVE, NOW + 600, WARM)),
        ({"hot_bytes": 4095}, Plan(Step.MOVE, NOW + 5600, COLD)),
        ({"hot_bytes": 4095, "importance": 0.5}, Plan(Step.LOOK, NOW + 6000)),
        ({"tier": WARM, "hot_bytes": 0}, Plan(Step.MOVE, NOW + 4700, COLD)),
        ({"tier": WARM}, Plan(Step.MOVE, NOW + 4700, COLD)),
        ({"tier": WARM, "importance": 0.5}, Plan(Step.LOOK, NOW + 5000)),
        ({"tier": WARM, "reads": 2}, Plan(Step.MOVE, NOW, HOT)),
        ({"tier": WARM, "version": 4}, Plan(Step.MOVE, NOW, HOT)),
        ({"tier": WARM, "pinned": True}, Plan(Step.MOVE, NOW, HOT)),
        ({"tier": COLD}, Plan(Step.REST, 0)),
        ({"tier": COLD, "reads": 1}, Plan(Step.REST, 0)),
        ({"tier": COLD, "reads": 2}, Plan(Step.MOVE, NOW, WARM)),
        ({"tier": COLD, "version": 4}, Plan(Step.MOVE, NOW, HOT)),
        ({"tier": COLD, "drop_ms": NOW + 50}, Plan(Step.DROP, NOW + 50)),
        ({"drop_ms": NOW + 50}, Plan(Step.DROP, NOW + 50)),
        ({"drop_ms": NOW + 9000}, Plan(Step.MOVE, NOW + 600, WARM)),
        ({"exists": False}, Plan(Step.REST, 0)),
        ({"exists": False, "drop_ms": NOW - 1}, Plan(Step.DROP, NOW - 1)),
    ],
)
def test_the_next_step(changed: dict[str, Any], plan: Plan) -> None:
    assert next_step(replace(AS_IT_IS, **changed), POLICY, NOW) == plan
