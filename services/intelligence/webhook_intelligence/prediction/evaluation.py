"""Whether pre-warming would pay on a recorded trace.

The trace is replayed in the order of time through the very model that runs online. Each use is judged
before it is learned (prequentially), so nothing is ever predicted from the future. The hot tier holds a
share of the contexts; without predictions it is an LRU. The first part of the trace is learned but not
scored. Doubt is told by a bootstrap over days.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from webhook_intelligence.prediction.observations import Observation, ObservationKind
from webhook_intelligence.prediction.predictor import Policy, Predictor
from webhook_intelligence.prediction.trial import Effect, Size

UNSCORED_SHARE = 0.2
RESAMPLES = 2000
SEED = 20261123
DAY_S = 86_400.0
# Fewer days than this tell nothing about their spread; then blocks of equal length take their place.
LEAST_DAYS = 10
SHORT_TRACE_BLOCKS = 20
LEAST_CAPACITY = 8

Recorded = tuple[str, Observation]


@dataclass(frozen=True)
class Score:
    """How a model did on a trace; shares are of the scored uses, 0 to 1.

    Attributes:
        uses: How many were scored.
        hit_rate_lru: Without predictions.
        hit_rate: With them.
        lift: The difference, which is what was saved less what was polluted.
        lift_low: Lower end of its interval of 95 %.
        lift_high: Upper end.
        pollution: Uses that missed because of a prediction.
        precision: Of the contexts that were warmed, how many were used before they had to go.
        recall: Of the uses that an LRU misses, how many were hot in time.
        warmed: How many contexts were warmed.
    """

    uses: int
    hit_rate_lru: float
    hit_rate: float
    lift: float
    lift_low: float
    lift_high: float
    pollution: float
    precision: float
    recall: float
    warmed: int

    @property
    def pays(self) -> bool:
        """Whether the lift is above 0 beyond doubt, and above the pollution."""
        return self.lift_low > 0 and self.pollution < self.lift


@dataclass(frozen=True)
class RuleScore:
    """One rule.

    Attributes:
        name: "association".
        on_at_end: Whether it was on when the trace ended.
        on_share: Of the scored uses, how many came while it was on.
        precision: Of its own predictions at the end, on or off: used within the lookback window.
        alone: How a model with this rule only did.
    """

    name: str
    on_at_end: bool
    on_share: float
    precision: float
    alone: Score


@dataclass(frozen=True)
class Report:
    """All that is found out about a trace.

    Attributes:
        observations: Of all tenants.
        contexts: Of all tenants.
        tenants: How many there are.
        capacity: Contexts that the hot tier of a tenant holds.
        together: All rules, each on or off as it has proven itself.
        rules: One by one.
        us_per_observation: Processor time to learn and predict, microseconds.
        bytes_per_context: Memory of the models, names not counted.
    """

    observations: int
    contexts: int
    tenants: int
    capacity: int
    together: Score
    rules: tuple[RuleScore, ...]
    us_per_observation: float
    bytes_per_context: float

    @property
    def on(self) -> bool:
        """Whether any rule was on when the trace ended."""
        return any(rule.on_at_end for rule in self.rules)


@dataclass
class _Replay:
    """One pass over a trace."""

    effects: list[Effect]
    times_s: list[float]
    on: dict[str, int]
    admitted: int
    used: int
    predictors: dict[str, Predictor]
    elapsed_s: float


def evaluate(trace: Sequence[Recorded], policy: Policy, *, capacity: int = 0, share: float = 0.05) -> Report:
    """Replay a trace with all rules together and with each alone.

    Args:
        trace: In any order.
        policy: As it would run.
        capacity: Contexts that a tenant's hot tier holds; 0: a share of the contexts.
        share: That share.

    Raises:
        ValueError: There is nothing to score.
    """
    ordered = sorted(trace, key=lambda recorded: recorded[1].at_s)
    uses = [seen for _, seen in ordered if seen.kind is not ObservationKind.GONE]
    if len(uses) < SHORT_TRACE_BLOCKS:
        raise ValueError(f"{len(uses)} uses are too few to judge by; {SHORT_TRACE_BLOCKS} are the least")
    tenants = {tenant for tenant, _ in ordered}
    contexts = len({(tenant, seen.context_id) for tenant, seen in ordered})
    capacity = capacity or max(LEAST_CAPACITY, int(share * contexts / len(tenants)))
    policy = replace(policy, tier=Size(capacity))
    together = _replay(ordered, policy)
    scored = len(uses) - int(len(uses) * UNSCORED_SHARE)
    rules = []
    for name in policy.rules:
        alone = _replay(ordered, replace(policy, rules=(name,)))
        verdicts = [predictor.verdicts[name] for predictor in together.predictors.values()]
        settled = sum(verdict.settled for verdict in verdicts)
        rules.append(
            RuleScore(
                name,
                on_at_end=any(verdict.on for verdict in verdicts),
                on_share=together.on[name] / scored,
                precision=sum(verdict.hits for verdict in verdicts) / settled if settled else 0.0,
                alone=_score(alone),
            )
        )
    return Report(
        observations=len(ordered),
        contexts=contexts,
        tenants=len(tenants),
        capacity=capacity,
        together=_score(together),
        rules=tuple(rules),
        us_per_observation=1e6 * together.elapsed_s / len(ordered),
        bytes_per_context=sum(map(_weight, together.predictors.values())) / contexts,
    )


def _replay(ordered: Sequence[Recorded], policy: Policy) -> _Replay:
    predictors: dict[str, Predictor] = {}
    replay = _Replay([], [], dict.fromkeys(policy.rules, 0), 0, 0, predictors, 0.0)
    unscored = int(UNSCORED_SHARE * sum(seen.kind is not ObservationKind.GONE for _, seen in ordered))
    uses = 0
    for tenant, seen in ordered:
        predictor = predictors.get(tenant)
        if predictor is None:
            predictor = predictors[tenant] = Predictor(policy)
        began = time.thread_time()
        effect = predictor.observe(seen).effect
        replay.elapsed_s += time.thread_time() - began
        if effect is None:
            continue
        uses += 1
        if uses == unscored:
            for known in predictors.values():
                known.warmed.admitted = known.warmed.used_after = 0
        if uses > unscored:
            replay.effects.append(effect)
            replay.times_s.append(seen.at_s)
            for name, verdict in predictor.verdicts.items():
                replay.on[name] += verdict.on
    replay.admitted = sum(predictor.warmed.admitted for predictor in predictors.values())
    replay.used = sum(predictor.warmed.used_after for predictor in predictors.values())
    return replay


def _score(replay: _Replay) -> Score:
    saved, polluted, hit = (
        np.array([effect is wanted for effect in replay.effects], dtype=float)
        for wanted in (Effect.SAVED, Effect.POLLUTED, Effect.HIT)
    )
    uses = len(saved)
    missed_by_lru = uses - hit.sum() - polluted.sum()
    low, high = _interval(saved - polluted, np.array(replay.times_s))
    return Score(
        uses=uses,
        hit_rate_lru=float((hit.sum() + polluted.sum()) / uses),
        hit_rate=float((hit.sum() + saved.sum()) / uses),
        lift=float((saved.sum() - polluted.sum()) / uses),
        lift_low=low,
        lift_high=high,
        pollution=float(polluted.sum() / uses),
        precision=replay.used / replay.admitted if replay.admitted else 0.0,
        recall=float(saved.sum() / missed_by_lru) if missed_by_lru else 0.0,
        warmed=replay.admitted,
    )


def _interval(gains: np.ndarray, times_s: np.ndarray) -> tuple[float, float]:
    """Where the mean gain lies with 95 %: days are drawn anew, uses of one day stay together."""
    blocks = (times_s // DAY_S).astype(np.int64)
    if len(np.unique(blocks)) < LEAST_DAYS:
        blocks = np.arange(len(gains)) * SHORT_TRACE_BLOCKS // len(gains)
    _, block_of = np.unique(blocks, return_inverse=True)
    sums = np.bincount(block_of, weights=gains)
    counts = np.bincount(block_of)
    drawn = np.random.default_rng(SEED).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _weight(predictor: Predictor) -> int:
    """The bytes that a model takes in memory; the names of contexts, which others hold too, not counted."""
    seen: set[int] = set()
    waiting: list[Any] = [predictor]
    weight = 0
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, str | type | ModuleType | FunctionType):
            continue
        seen.add(id(found))
        weight += sys.getsizeof(found)
        waiting += gc.get_referents(found)
    return weight
