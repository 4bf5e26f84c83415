"""The result of a run, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.report import machine, versions
from tests.ledger.run import Result
from tests.ledger.trials import Trial


def figures(result: Result) -> dict[str, Any]:
    """Everything, as JSON can say it."""
    promises, account, plan = result.promises, result.account, result.plan
    return {
        "kills": dict(sorted(result.kills.items())),
        "kills_total": sum(result.kills.values()),
        "deliveries": plan.deliveries,
        "acknowledged": len(promises.events),
        "lost": len(account.lost),
        "double_effects": len(account.double_effects),
        "changed": len(account.changed),
        "strangers": len(account.strangers),
        "in_contexts": result.in_contexts,
        "contexts_behind": result.behind,
        "dead": result.dead,
        "waiting": result.waiting,
        "retries": promises.retries,
        "answers_unheard": len(promises.unheard),
        "recognised_duplicates": promises.repeated,
        "told_another_id": len(promises.renamed),
        "refused": dict(sorted(promises.refused.items())),
        "load_seconds": round(result.load_s, 1),
        "drain_seconds": round(result.drain_s, 1),
        "seconds": round(result.load_s + result.drain_s, 1),
        "settings": {
            "appendfsync": "always",
            "contexts": plan.contexts,
            "kills_of_each_process": plan.rounds,
            "seed": plan.seed,
        },
        "machine": machine(),
        "versions": versions(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show(result: Result, console: Console) -> None:
    """A table, and what is wrong if anything is."""
    table = Table(title="Ledger: what was acknowledged, and where it is", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures(result).items():
        if name == "kills":
            for process, count in value.items():
                table.add_row(f"kills of {process}", str(count))
        elif not isinstance(value, dict):
            table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    account = result.account
    for title, found in (
        ("lost", account.lost),
        ("double effects", account.double_effects),
        ("changed", account.changed),
        ("strangers", account.strangers),
    ):
        if found:
            console.print(f"[bold red]{title}[/]: {', '.join(map(str, found[:20]))}")
    if account.is_clean:
        console.print("[green]Every acknowledged event is there, once.[/]")


def row(trial: Trial) -> dict[str, Any]:
    """One fault, as JSON can say it."""
    return {
        "fault": trial.fault,
        "durability": trial.level,
        "acknowledged": trial.acknowledged,
        "lost": len(trial.account.lost),
        "double_effects": len(trial.account.double_effects),
        "changed": len(trial.account.changed),
        "retries": trial.retries,
        "answers_unheard": trial.unheard,
        "recognised_duplicates": trial.recognised,
        "outage_s": trial.outage_s,
        "drain_s": trial.drain_s,
    }


def show_faults(trials: Sequence[Trial], console: Console) -> None:
    """A table of them."""
    rows = [row(trial) for trial in trials]
    table = Table(title="Under other faults", title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "fault" else "right")
    for each in rows:
        table.add_row(*map(str, each.values()))
    console.print(table)


def write(result: Result, trials: Sequence[Trial], file: Path) -> None:
    """The figures, for machines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {**figures(result), "faults": [row(trial) for trial in trials]}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
