"""What is learned from the use of contexts, and when a rule is worth acting on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webhook_intelligence.prediction import followers, rules
from webhook_intelligence.prediction.followers import Followers
from webhook_intelligence.prediction.observations import Observation, ObservationKind
from webhook_intelligence.prediction.predictor import Policy, Prediction, Predictor
from webhook_intelligence.prediction.trial import Effect, PlainTier, Size, WarmedTier
from webhook_intelligence.prediction.verdicts import Verdict

HOUR_S = 3600.0
PULL, ISSUE, RUN = "github:o/h:pull_request:1", "github:o/h:issue:2", "github:o/h:workflow_run:3"


def use(at_s: float, context_id: str, *, actor: str = "ann", links: Sequence[str] = ()) -> Observation:
    return Observation(at_s, ObservationKind.ACCESS, context_id, actor, tuple(links))


def taught(sequence: Sequence[str], *, times: int, policy: Policy | None = None) -> Predictor:
    """A model that has seen a sequence, a minute between its uses, every two hours."""
    predictor = Predictor(policy or Policy())
    for round_ in range(times):
        for i, context_id in enumerate(sequence):
            predictor.observe(use(2 * HOUR_S * round_ + 60 * i, context_id))
    return predictor


def named(found: list[Prediction]) -> list[str]:
    return [one.context_id for one in found]


def test_what_was_used_together_is_predicted_once_it_pays() -> None:
    predictor = taught(("a", "b", "c"), times=40)
    predictor.observe(use(100 * HOUR_S, "a"))
    found = predictor.predict(["a"], 10, include_off=False)
    assert sorted(named(found)) == ["b", "c"]
    assert all(one.on and one.confidence > 0.9 and one.because == "a" for one in found)


def test_nothing_is_acted_on_before_it_is_proven() -> None:
    predictor = taught(("a", "b"), times=3)
    predictor.observe(use(100 * HOUR_S, "a"))
    assert predictor.predict(["a"], 10, include_off=False) == []
    assert named(predictor.predict(["a"], 10, include_off=True)) == ["b"]


def test_what_is_in_use_is_not_predicted() -> None:
    predictor = taught(("a", "b", "c"), times=40)
    predictor.observe(use(100 * HOUR_S, "a"))
    predictor.observe(use(100 * HOUR_S + 1, "b"))
    assert named(predictor.predict(["a", "b"], 10, include_off=True)) == ["c"]
    assert named(predictor.predict([], 1, include_off=True)) == ["c"]


def test_links_need_no_history_of_the_context() -> None:
    predictor = Predictor(Policy(rules=("links",)))
    for i in range(40):
        pull, issue = f"github:o/h:pull_request:{i}", f"github:o/h:issue:{1000 + i}"
        # The link is told a day before it is of use.
        predictor.observe(use(2 * i * 24 * HOUR_S, pull, links=[issue]))
        predictor.observe(use((2 * i + 1) * 24 * HOUR_S, pull))
        predictor.observe(use((2 * i + 1) * 24 * HOUR_S + 60, issue))
    predictor.observe(use(90 * 24 * HOUR_S, "github:o/h:pull_request:999", links=["github:o/h:issue:1999"]))
    (found,) = predictor.predict(["github:o/h:pull_request:999"], 10, include_off=True)
    assert (found.context_id, found.rule) == ("github:o/h:issue:1999", "links")
    # After half of the uses of a pull request its issue was used.
    assert found.confidence == pytest.approx(0.5, abs=0.05)


def test_links_that_nobody_follows_fall_below_the_threshold() -> None:
    predictor = Predictor(Policy(rules=("links",)))
    for i in range(20):
        predictor.observe(use(i * HOUR_S, f"g:o:pull_request:{i}", links=[f"g:o:milestone:{i}"]))
    assert predictor.predict(["g:o:pull_request:3"], 10, include_off=True) == []


def test_successions_are_learned_by_actor() -> None:
    predictor = Predictor(Policy(rules=("succession",)))
    for i in range(10):
        # Two people at work at the same time, each on their own way.
        for j, (ann, bob) in enumerate((("a", "x"), ("b", "y"))):
            predictor.observe(use(i * HOUR_S + 2 * j, ann, actor="ann"))
            predictor.observe(use(i * HOUR_S + 2 * j + 1, bob, actor="bob"))
    predictor.observe(use(100 * HOUR_S, "z"))
    assert named(predictor.predict(["a"], 10, include_off=True)) == ["b"]
    assert named(predictor.predict(["x"], 10, include_off=True)) == ["y"]


def test_what_is_gone_is_not_predicted_any_more() -> None:
    predictor = taught(("a", "b", "c"), times=40)
    predictor.observe(Observation(90 * HOUR_S, ObservationKind.GONE, "b"))
    predictor.observe(use(100 * HOUR_S, "a"))
    assert named(predictor.predict(["a"], 10, include_off=True)) == ["c"]
    assert '"b"' not in json.dumps(predictor.state())


def test_a_threshold_is_a_threshold() -> None:
    predictor = Predictor(Policy(confidence_threshold=0.6, rules=("association",)))
    for i in range(30):
        predictor.observe(use(i * HOUR_S, "a"))
        predictor.observe(use(i * HOUR_S + 1, "often" if i % 3 else "seldom"))
    predictor.observe(use(100 * HOUR_S, "a"))
    assert named(predictor.predict(["a"], 10, include_off=True)) == ["often"]


def test_time_that_runs_backwards_changes_nothing() -> None:
    predictor = taught(("a", "b"), times=40)
    predictor.observe(use(1000 * HOUR_S, "c"))
    predictor.observe(use(5.0, "d"))
    predictor.observe(use(1000 * HOUR_S + 1, "a"))
    assert "b" in named(predictor.predict(["a"], 10, include_off=True))


def test_a_model_that_is_restored_predicts_the_same() -> None:
    predictor = taught(("a", "b", "c"), times=40)
    restored = Predictor(Policy())
    restored.restore(json.loads(json.dumps(predictor.state())))
    for model in (predictor, restored):
        model.observe(use(100 * HOUR_S, "a"))
    before, after = (model.predict(["a"], 10, include_off=True) for model in (predictor, restored))
    assert [(p.context_id, p.rule, round(p.confidence, 3)) for p in before] == [
        (p.context_id, p.rule, round(p.confidence, 3)) for p in after
    ]
    assert restored.verdicts["association"].on
    assert restored.observation_count == predictor.observation_count


def test_old_habits_fade() -> None:
    table = Followers()
    for i in range(10):
        table.begin("a", float(i))
        table.follow("a", "b")
    table.begin("a", 10 * followers.HALF_LIFE_S)
    for _ in range(3):
        table.begin("a", 10 * followers.HALF_LIFE_S)
        table.follow("a", "c")
    assert dict(table.after("a")) == {"c": pytest.approx(0.75, abs=0.02)}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "MOST_ANTECEDENTS", 50)
    monkeypatch.setattr(rules, "MOST_LINKED", 50)
    predictor = Predictor(Policy(tier=Size(50)))
    sizes = []
    for round_ in range(3):
        for i in range(150):
            name = f"g:o:k{round_}-{i}:1"
            predictor.observe(
                use(round_ * 1e6 + i, name, actor=name, links=[f"g:o:l:{i + j}" for j in range(40)])
            )
        sizes.append(len(json.dumps(predictor.state())))
    assert sizes[2] <= 1.2 * sizes[1]
    assert sys.getsizeof(predictor.plain) < 10_000


class TestVerdict:
    def test_it_goes_on_only_beyond_doubt(self) -> None:
        verdict = Verdict(0.15)
        for _ in range(9):
            verdict.settle(used=True)
            verdict.affect(Effect.SAVED)
        assert not verdict.on
        verdict.affect(Effect.SAVED)
        assert verdict.on
        doubtful = Verdict(0.15)
        for _ in range(20):
            doubtful.affect(Effect.SAVED)
        for used in (False, False, False, True):
            doubtful.settle(used=used)
        assert not doubtful.on

    def test_it_goes_off_below_break_even(self) -> None:
        verdict = _proven()
        for _ in range(600):
            verdict.settle(used=False)
        assert not verdict.on

    def test_precise_predictions_that_spoil_more_than_they_save_are_off(self) -> None:
        verdict = _proven()
        for _ in range(60):
            verdict.settle(used=True)
            verdict.affect(Effect.POLLUTED)
        assert verdict.precision > 0.9
        assert not verdict.on

    def test_it_comes_on_again_when_it_pays_again(self) -> None:
        verdict = _proven()
        for _ in range(600):
            verdict.settle(used=False)
        for _ in range(150):
            verdict.settle(used=True)
            verdict.affect(Effect.SAVED)
        assert verdict.on


def _proven() -> Verdict:
    verdict = Verdict(0.15)
    for _ in range(30):
        verdict.settle(used=True)
        verdict.affect(Effect.SAVED)
    assert verdict.on
    return verdict


class TestTiers:
    def test_without_predictions_both_are_the_same(self) -> None:
        plain, warmed = PlainTier(Size(3)), WarmedTier(Size(3))
        for i, context_id in enumerate("abcabdaebbcda" * 5):
            assert plain.use(context_id, float(i)) == warmed.use(context_id, float(i))

    def test_a_context_that_was_not_used_for_long_is_cold(self) -> None:
        tier = PlainTier(Size(10, hot_s=30.0))
        assert [tier.use("a", at_s) for at_s in (0.0, 29.0, 60.0, 89.0)] == [False, True, False, True]

    def test_predictions_take_a_fifth_at_most(self) -> None:
        tier = WarmedTier(Size(10))
        for i in range(10):
            tier.use(f"used{i}", float(i))
        for i in range(50):
            tier.admit(f"foreseen{i}", 20.0)
        assert [tier.use(f"used{i}", 30.0 + i) for i in range(2, 10)] == [True] * 8

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200), st.integers(1, 12))
    @settings(max_examples=60, deadline=None)
    def test_they_never_hold_more_than_they_may(self, steps: list[tuple[bool, int]], capacity: int) -> None:
        tier = WarmedTier(Size(capacity))
        for at, (is_use, number) in enumerate(steps):
            if is_use:
                tier.use(str(number), float(at))
            else:
                tier.admit(str(number), float(at))
            assert len(tier) <= max(capacity, 1)
