"""Short runs of the ledger: processes killed and away under load, and nothing lost or doubled."""

from __future__ import annotations

from pathlib import Path

from tests.ledger import outage, report, trials
from tests.ledger.__main__ import quick
from tests.ledger.faults import FAULTS
from tests.ledger.killer import VICTIMS
from tests.ledger.run import run


async def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    result = await run(quick, tmp_path)
    figures = report.figures(result)
    assert result.account.is_clean, figures
    assert figures["acknowledged"] == quick.deliveries
    assert figures["in_contexts"] == quick.deliveries
    assert (figures["contexts_behind"], figures["dead"], figures["waiting"]) == (0, 0, 0)
    assert figures["kills"] == dict.fromkeys(sorted(VICTIMS), quick.rounds)
    # Whoever came again though it was there already was told so, before and after kills.
    assert figures["answers_unheard"] > 0
    assert figures["recognised_duplicates"] >= figures["answers_unheard"] - figures["told_another_id"]
    assert figures["recognised_duplicates"] > 0


async def test_what_was_acknowledged_while_redis_was_away_arrives_once(tmp_path: Path) -> None:
    result = await outage.run(deliveries=300, contexts=10, seed=1, var=tmp_path)
    assert result.account.is_clean, result
    assert len(result.promises.events) == result.in_contexts == result.deliveries
    # All of the second part was acknowledged while there was no Redis, and across the gateway's death.
    assert result.spooled >= result.deliveries // 3
    # Nobody but those whom the gateway's death cut off had to come again.
    assert result.promises.refused.keys() <= {"closed", "cut"}


async def test_nothing_is_lost_when_connections_break_and_the_group_is_gone(tmp_path: Path) -> None:
    for trial in await trials.run([fault for fault in FAULTS if fault.is_quick], tmp_path, "always"):
        assert trial.account.is_clean, trial
        assert trial.acknowledged >= trials.FEWEST
