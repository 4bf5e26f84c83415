"""`webhook-cli prewarm`: what is predicted, and whether prediction would pay."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc
from webhook_intelligence.prediction import trace as recorded
from webhook_intelligence.prediction.evaluation import Report, Score, evaluate
from webhook_intelligence.prediction.observations import Observation
from webhook_intelligence.prediction.predictor import Policy

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.render import console, print_json, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Predict which contexts are needed next; judge the predictions.")

_STANDARD_INPUT = Path("-")
_DEFAULTS = Policy()


@app.command()
def predict(
    ctx: typer.Context,
    *,
    context_ids: Annotated[
        list[str] | None, typer.Argument(help="What is in use now; left out: what was observed last.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, max=100, help="How many; 0: as configured.")] = 0,
    only_on: Annotated[bool, typer.Option("--only-on", help="Without those of rules that are off.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show which contexts are likely to be needed next, why, and how the rules do.

    Example: `webhook-cli prewarm predict github:octo/hello:pull_request:42`
    """
    request = intelligence_service_pb2.PredictRequest(
        tenant=tenant, context_ids=context_ids, max_predictions=limit, include_off=not only_on
    )

    async def work(door: Door) -> intelligence_service_pb2.PredictResponse:
        async with door.open("intelligence") as channel:
            return await intelligence_service_pb2_grpc.IntelligenceServiceStub(channel).Predict(request)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    rows = [
        (one.context_id, f"{one.confidence:.2f}", one.rule, one.because_context_id, _switch(on=one.on))
        for one in found.predictions
    ]
    out.print(table(("context", "confidence", "rule", "because of", "rule is"), rows))
    if not rows:
        out.print("Nothing is predicted: what is known is in use already, or too little is known.")
    out.print()
    out.print(
        table(
            ("rule", "is", "came true", "of", "saved", "polluted"),
            [
                (
                    rule.name,
                    _switch(on=rule.on),
                    f"{rule.precision:.0%}",
                    f"{rule.settled_count:.0f}",
                    f"{rule.saved_count:.0f}",
                    f"{rule.polluted_count:.0f}",
                )
                for rule in found.rules
            ],
        )
    )
    active = found.mode == intelligence_service_pb2.PREDICTION_MODE_ACTIVE
    mode = "to be acted on" if active else "shadow mode: measured only"
    out.print(f"{found.observation_count} observations; {mode}")


@app.command("evaluate")
def evaluate_(
    *,
    trace: Annotated[Path, typer.Argument(help="A trace, one JSON object per line; - for standard input.")],
    capacity: Annotated[
        int, typer.Option("--capacity", min=0, help="Contexts in a tenant's hot tier; 0: --share of them.")
    ] = 0,
    share: Annotated[float, typer.Option("--share", min=0.0001, max=1, help="Of the contexts.")] = 0.05,
    max_predictions: Annotated[
        int, typer.Option("--max-predictions", min=1, max=100, help="Most for one use, by each rule.")
    ] = _DEFAULTS.max_predictions,
    confidence: Annotated[
        float, typer.Option("--confidence", min=0, max=1, help="Least confidence of a prediction.")
    ] = _DEFAULTS.confidence_threshold,
    lookback: Annotated[str, typer.Option("--lookback", help="How far apart uses belong together.")] = "15m",
    break_even: Annotated[
        float, typer.Option("--break-even", min=0, max=1, help="Precision below which a rule goes off.")
    ] = _DEFAULTS.break_even,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 1 where a rule is on and the whole does not pay.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Replay a recorded trace and say whether pre-warming pays on it. Needs no running system.

    Each line: {"time": "2026-11-23T09:30:00Z", "tenant": "acme", "kind": "event" or "access",
    "context_id": "github:octo/hello:issue:7", "actor": "mona", "links": ["..."]}; tenant, actor and links
    may be left out. Each use is judged before it is learned; the first fifth is not scored.

    Example: `webhook-cli prewarm evaluate trace.jsonl --lookback 15m --json | jq .together.lift`
    """
    policy = dataclasses.replace(
        _DEFAULTS,
        max_predictions=max_predictions,
        confidence_threshold=confidence,
        lookback_s=lifetime(lookback).total_seconds(),
        break_even=break_even,
    )
    try:
        report = evaluate(_read(trace), policy, capacity=capacity, share=share)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        fail(f"{trace} can't be read: {why}", Exit.FAILED, reason="TRACE_UNREADABLE", as_json=as_json)
    except ValueError as error:
        fail(str(error), Exit.FAILED, reason="TRACE_UNUSABLE", as_json=as_json)
    if as_json:
        print_json(_plain(report))
    else:
        _print(report)
    if gate and report.on and not report.together.pays:
        sys.exit(Exit.FAILED)


def _read(trace: Path) -> list[tuple[str, Observation]]:
    if trace == _STANDARD_INPUT:
        return list(recorded.read(sys.stdin))
    with trace.open(encoding="utf-8") as lines:
        return list(recorded.read(lines))


def _plain(report: Report) -> dict[str, Any]:
    tree = dataclasses.asdict(report)
    tree["on"] = report.on
    tree["together"]["pays"] = report.together.pays
    for plain, rule in zip(tree["rules"], report.rules, strict=True):
        plain["alone"]["pays"] = rule.alone.pays
    return tree


def _print(report: Report) -> None:
    out = console()
    score = report.together
    out.print(
        f"{report.observations} observations of {report.contexts} contexts, {report.tenants} tenant(s); "
        f"the hot tier holds {report.capacity}; {score.uses} uses are scored"
    )
    out.print(
        table(
            ("", ""),
            [
                ("hit rate of an LRU", f"{score.hit_rate_lru:.1%}"),
                ("hit rate with predictions", f"{score.hit_rate:.1%}"),
                ("lift over LRU", _lift(score)),
                ("pollution", f"{100 * score.pollution:.2f} points"),
                ("precision", f"{score.precision:.1%} of {score.warmed} contexts warmed were used in time"),
                ("recall", f"{score.recall:.1%} of the misses of an LRU were hot in time"),
                ("cost", f"{report.us_per_observation:.0f} µs per observation"),
                ("memory", f"{report.bytes_per_context:.0f} bytes per context"),
            ],
        )
    )
    rows = [
        (
            rule.name,
            _switch(on=rule.on_at_end),
            f"{rule.on_share:.0%}",
            f"{rule.precision:.1%}",
            _lift(rule.alone),
            f"{100 * rule.alone.pollution:.2f} points",
        )
        for rule in report.rules
    ]
    out.print()
    out.print(table(("rule", "is", "was on", "came true", "lift alone", "pollution alone"), rows))
    out.print()
    out.print(text(_verdict(report)))


def _lift(score: Score) -> str:
    low, high = 100 * score.lift_low, 100 * score.lift_high
    return f"{100 * score.lift:+.2f} points (95 %: {low:+.2f} to {high:+.2f})"


def _verdict(report: Report) -> str:
    if not report.on:
        return "off: no rule pays on this trace"
    if report.together.pays:
        return "pays: the lift is above 0 beyond doubt and above the pollution"
    return "does not pay: rules are on, but the lift is in doubt or no more than the pollution"


def _switch(*, on: bool) -> str:
    return "on" if on else "off"
