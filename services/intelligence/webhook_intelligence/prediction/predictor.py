"""Which contexts will be needed next: learned online from what was touched, for one tenant.

Each use is first compared with what was predicted, then learned from, then predicted from; so what is
measured is always prediction, never hindsight. The same sequence of observations gives the same model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from webhook_intelligence.prediction.observations import Observation, ObservationKind, Recent
from webhook_intelligence.prediction.rules import Association, Links, Rule, Succession
from webhook_intelligence.prediction.trial import Effect, PlainTier, Size, WarmedTier, effect
from webhook_intelligence.prediction.verdicts import Verdict

RULES = ("links", "association", "succession")
MOST_RECENT = 4096
MOST_PENDING = 4096
SEED_CONTEXTS = 8
DEFAULT_TIER = Size(contexts=1024, hot_s=1800.0)


@dataclass(frozen=True)
class Policy:
    """How prediction is set.

    Attributes:
        max_predictions: Most contexts predicted for one use, by each rule.
        confidence_threshold: Least confidence of a prediction, 0 to 1.
        lookback_s: How far apart uses still belong together, and how long a prediction waits for its use.
        break_even: Precision below which a rule does not pay, 0 to 1.
        tier: The hot tier in which predictions are tried.
        rules: Which rules there are.
    """

    max_predictions: int = 10
    confidence_threshold: float = 0.3
    lookback_s: float = 900.0
    break_even: float = 0.15
    tier: Size = DEFAULT_TIER
    rules: tuple[str, ...] = RULES


@dataclass(frozen=True, slots=True)
class Prediction:
    """A context that is likely to be used, why, and whether its rule is on."""

    context_id: str
    confidence: float
    rule: str
    because: str
    on: bool


@dataclass(slots=True)
class Outcome:
    """What one observation brought to light.

    Attributes:
        effect: Of the use, with the rules that are on; None where it was no use.
        settled: Rules whose predictions came true (True) or waited in vain (False).
    """

    effect: Effect | None = None
    settled: list[tuple[str, bool]] = field(default_factory=list)


class Predictor:
    """The model of one tenant."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.observation_count = 0
        self.plain = PlainTier(policy.tier)
        self.warmed = WarmedTier(policy.tier)
        rules: dict[str, Rule] = {
            "links": Links(policy.lookback_s),
            "association": Association(policy.lookback_s),
            "succession": Succession(),
        }
        self._rules = {name: rules[name] for name in policy.rules}
        self.verdicts = {name: Verdict(policy.break_even) for name in self._rules}
        self._alone = {name: WarmedTier(policy.tier) for name in self._rules}
        self._recent = Recent(policy.lookback_s, MOST_RECENT)
        self._pending: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._now_s = 0.0

    @property
    def learned_count(self) -> int:
        """How many contexts its rules remember, each counted by each."""
        return sum(len(rule) for rule in self._rules.values())

    def observe(self, seen: Observation) -> Outcome:
        """Learn from one observation. One that is older than the last counts as of the same time."""
        self.observation_count += 1
        if seen.kind is ObservationKind.GONE:
            self._forget(seen.context_id)
            return Outcome()
        if seen.at_s < self._now_s:
            seen = Observation(self._now_s, seen.kind, seen.context_id, seen.actor, seen.links)
        self._now_s = seen.at_s
        outcome = Outcome()
        self._recent.expire(seen.at_s)
        self._expire(seen.at_s, outcome)
        self._settle(seen.context_id, outcome)
        for rule in self._rules.values():
            rule.learn(seen, self._recent)
        self._recent.saw(seen.context_id, seen.at_s)
        self._foresee(seen.context_id)
        return outcome

    def predict(self, context_ids: Sequence[str], most: int, *, include_off: bool) -> list[Prediction]:
        """What is likely to follow, likeliest first. Changes nothing.

        Args:
            context_ids: What is in use; empty: what was observed last.
            most: How many at most.
            include_off: Also those of rules that do not pay.
        """
        best: dict[str, Prediction] = {}
        for source in context_ids or self._recent.newest(SEED_CONTEXTS):
            for name, rule in self._rules.items():
                on = self.verdicts[name].on
                if not (on or include_off):
                    continue
                for context_id, confidence in self._worth(rule, source, context_ids):
                    known = best.get(context_id)
                    if known is None or (on, confidence) > (known.on, known.confidence):
                        best[context_id] = Prediction(context_id, confidence, name, source, on)
        ranked = sorted(best.values(), key=lambda p: (not p.on, -p.confidence, p.context_id))
        return ranked[:most]

    def state(self) -> dict[str, Any]:
        """What is learned, as JSON has it; what is only under way is left out."""
        return {
            "observations": self.observation_count,
            "now_s": self._now_s,
            "rules": {name: rule.state() for name, rule in self._rules.items()},
            "verdicts": {name: verdict.state() for name, verdict in self.verdicts.items()},
        }

    def restore(self, state: Any) -> None:
        """The opposite of `state`; raises what malformed data raises."""
        self.observation_count = int(state["observations"])
        self._now_s = float(state["now_s"])
        for name, rule in self._rules.items():
            rule.restore(state["rules"][name])
            self.verdicts[name].restore(state["verdicts"][name])

    def _worth(self, rule: Rule, source: str, in_use: Iterable[str]) -> list[tuple[str, float]]:
        """What a rule says to one context, the likeliest first, within the policy."""
        found = [
            (context_id, confidence)
            for context_id, confidence in rule.candidates(source)
            if confidence >= self.policy.confidence_threshold
            and context_id not in self._recent
            and context_id != source
            and context_id not in in_use
        ]
        found.sort(key=lambda candidate: (-candidate[1], candidate[0]))
        return found[: self.policy.max_predictions]

    def _foresee(self, source: str) -> None:
        """Note what each rule predicts; warm it in its own tier, and if it is on in that of all rules."""
        due_s = self._now_s + self.policy.lookback_s
        for name, rule in self._rules.items():
            for context_id, _ in self._worth(rule, source, ()):
                key = (name, context_id)
                if key in self._pending:
                    continue
                self._pending[key] = due_s
                self._alone[name].admit(context_id, self._now_s)
                if self.verdicts[name].on:
                    self.warmed.admit(context_id, self._now_s)

    def _settle(self, context_id: str, outcome: Outcome) -> None:
        plain = self.plain.use(context_id, self._now_s)
        outcome.effect = effect(plain=plain, warmed=self.warmed.use(context_id, self._now_s))
        for name, verdict in self.verdicts.items():
            if self._pending.pop((name, context_id), None) is not None:
                verdict.settle(used=True)
                outcome.settled.append((name, True))
            verdict.affect(effect(plain=plain, warmed=self._alone[name].use(context_id, self._now_s)))

    def _expire(self, at_s: float, outcome: Outcome) -> None:
        while self._pending:
            name, context_id = oldest = next(iter(self._pending))
            if self._pending[oldest] > at_s and len(self._pending) <= MOST_PENDING:
                return
            del self._pending[oldest]
            self.warmed.withdraw(context_id)
            self._alone[name].withdraw(context_id)
            self.verdicts[name].settle(used=False)
            outcome.settled.append((name, False))

    def _forget(self, context_id: str) -> None:
        self._recent.forget((context_id,))
        self.plain.forget(context_id)
        self.warmed.forget(context_id)
        for name, rule in self._rules.items():
            self._alone[name].forget(context_id)
            rule.forget(context_id)
            self._pending.pop((name, context_id), None)
