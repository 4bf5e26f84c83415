"""`python -m tests.ledger`: run it, print it, write it down, and fail if anything is missing or twice."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.ledger import formations, report, trials
from tests.ledger.faults import FAULTS
from tests.ledger.killer import VICTIMS
from tests.ledger.run import Plan, run

FILE = Path("var/bench/ledger.json")
CONTEXTS = 50
LEVELS: tuple[trials.Fsync, ...] = ("always", "everysec")
QUICK_DELIVERIES, QUICK_CONTEXTS, QUICK_ROUNDS = 300, 10, 1

quick = Plan(QUICK_DELIVERIES, QUICK_CONTEXTS, QUICK_ROUNDS, seed=1)


def main(
    deliveries: Annotated[int, typer.Option(min=1, help="How many webhooks to send.")] = 5000,
    rounds: Annotated[int, typer.Option(min=1, help="How often to kill each process.")] = 4,
    seed: Annotated[int, typer.Option(help="Decides about the order and moments of the kills.")] = 1,
    *,
    with_faults: Annotated[
        bool, typer.Option("--faults", help="Then every other fault, at both levels of durability.")
    ] = False,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="A few hundred webhooks, each process once.")
    ] = False,
) -> None:
    """Send webhooks while every process, Redis included, is killed; account for each acknowledged one."""
    if deliveries < rounds * len(VICTIMS):
        raise typer.BadParameter("there must be a delivery for each kill")
    plan = quick if is_quick else Plan(deliveries, min(CONTEXTS, deliveries), rounds, seed)
    with tempfile.TemporaryDirectory(prefix="webhook-ledger-") as var:
        result = asyncio.run(run(plan, Path(var)))
    report.show(result, Console())
    report.write(result, [], FILE)
    found: list[trials.Trial] = []
    for some in _all_trials() if with_faults else ():
        found += some
        # What has been found stays, whatever becomes of the rest.
        report.write(result, found, FILE)
    if found:
        report.show_faults(found, Console(width=160))
    accounts = [result.account, *(each.account for each in found)]
    sys.exit(0 if all(account.is_clean for account in accounts) else 1)


def _all_trials() -> Iterator[Sequence[trials.Trial]]:
    for fsync in LEVELS:
        yield _trials(fsync)
    print("Cluster and Sentinel")
    with tempfile.TemporaryDirectory(prefix="webhook-ledger-") as var:
        yield asyncio.run(formations.run(Path(var)))


def _trials(fsync: trials.Fsync) -> list[trials.Trial]:
    print(f"appendfsync {fsync}")
    with tempfile.TemporaryDirectory(prefix="webhook-ledger-") as var:
        return asyncio.run(trials.run(FAULTS, Path(var), fsync))


if __name__ == "__main__":
    typer.run(main)
