"""Pre-warming on traces: it pays where there is something to learn, and is off where there is not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from webhook_intelligence.prediction import trace
from webhook_intelligence.prediction.evaluation import Recorded, Report, evaluate
from webhook_intelligence.prediction.observations import Observation, ObservationKind
from webhook_intelligence.prediction.predictor import Policy, Predictor
from webhook_intelligence.prediction.trial import Size

from services.intelligence.tests import traces


def directories(recorded: list[Recorded]) -> list[Recorded]:
    """The same history by directory: few contexts, most of them always in use."""
    return [
        (tenant, replace(seen, context_id=seen.context_id.rpartition("/")[0])) for tenant, seen in recorded
    ]


def on(report: Report) -> set[str]:
    return {rule.name for rule in report.rules if rule.on_at_end}


def test_known_structure_is_found() -> None:
    report = evaluate(traces.structured(days=10), Policy())
    assert on(report) == {"links", "association", "succession"}
    assert report.together.pays
    # A fifth of the issues and runs is not read, so no more than 0.8 can be right.
    assert 0.7 < report.together.precision <= 0.85
    assert report.together.hit_rate_lru < 0.1
    assert report.together.lift_low > 0.2
    assert report.together.pollution < 0.01


def test_a_commit_history_is_worth_it() -> None:
    report = evaluate(traces.commits(days=60), Policy())
    assert {"association"} <= on(report)
    assert "links" not in on(report)
    assert report.together.lift_low > 0.02
    assert report.together.pollution < report.together.lift


def test_it_is_off_where_nothing_follows_from_anything() -> None:
    report = evaluate(traces.noise(uses=1500), Policy())
    assert not report.on
    assert report.together.warmed == 0
    assert report.together.hit_rate == report.together.hit_rate_lru


def test_it_is_off_where_its_predictions_come_true_but_push_out_what_is_used_more() -> None:
    # Six hours hold most of what is ever used; the hot tier holds eight.
    recorded = directories(traces.commits(days=80))
    report = evaluate(recorded, Policy(lookback_s=6 * 3600.0), capacity=8)
    association = next(rule for rule in report.rules if rule.name == "association")
    assert association.precision > Policy().break_even
    assert not association.on_at_end
    assert report.together.lift > -0.002


def test_nothing_is_predicted_from_the_future() -> None:
    recorded = traces.commits(days=15)
    half = len(recorded) // 2

    def effects(of: list[Recorded]) -> list[object]:
        predictor = Predictor(Policy(tier=Size(16)))
        return [predictor.observe(seen).effect for _, seen in of][:half]

    assert effects(recorded) == effects(recorded[:half] + traces.noise(uses=300))


def test_the_same_trace_gives_the_same_report() -> None:
    recorded = traces.commits(days=15)
    one, other = (evaluate(of, Policy()) for of in (recorded, list(reversed(recorded))[::-1]))
    assert one.together == other.together
    assert one.rules == other.rules


def test_doubt_is_wider_on_a_shorter_trace() -> None:
    short, long = (evaluate(traces.structured(days=days), Policy()).together for days in (2, 6))
    assert short.lift_high - short.lift_low > long.lift_high - long.lift_low


def test_tenants_learn_apart() -> None:
    recorded = traces.structured(days=2)
    shared = evaluate(recorded + [("globex", seen) for _, seen in recorded], Policy())
    assert shared.tenants == 2
    alone = evaluate(recorded, Policy())
    assert shared.together.hit_rate == pytest.approx(alone.together.hit_rate, abs=0.01)


def test_too_little_to_judge() -> None:
    with pytest.raises(ValueError, match="too few"):
        evaluate(traces.noise(uses=10), Policy())


def test_a_trace_is_read_as_it_is_written() -> None:
    recorded = traces.structured(days=1)
    lines = [json.dumps(trace.plain(tenant, seen)) for tenant, seen in recorded]
    assert list(trace.read([*lines, "", "  \n"])) == recorded


def test_times_may_be_written_for_people() -> None:
    line = '{"time": "2026-11-23T09:30:00Z", "kind": "access", "context_id": "a:b:c:1"}'
    ((tenant, seen),) = trace.read([line])
    assert (tenant, seen) == ("default", Observation(1795426200.0, ObservationKind.ACCESS, "a:b:c:1"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: "),
        ('{"time": 1, "kind": "access"}', "line 2: context_id: "),
        ('{"time": 1, "kind": "seen", "context_id": "a"}', "line 2: kind: "),
        ('{"time": "2026-11-23T09:30:00", "kind": "access", "context_id": "a"}', "line 2: time: "),
        ('{"time": NaN, "kind": "access", "context_id": "a"}', "line 2: "),
        ('{"time": 1, "kind": "access", "context_id": "a", "who": "b"}', "line 2: who: "),
    ],
)
def test_a_line_that_is_none_is_named(line: str, said: str) -> None:
    good = '{"time": 1, "kind": "access", "context_id": "a"}'
    with pytest.raises(trace.TraceError) as caught:
        list(trace.read([good, line]))
    assert str(caught.value).startswith(said)
