"""A short run of the ledger: every process killed once under load, and nothing lost or doubled."""

from __future__ import annotations

from pathlib import Path

from tests.ledger import report
from tests.ledger.__main__ import quick
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
