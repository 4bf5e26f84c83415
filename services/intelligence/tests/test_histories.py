"""Real histories are read right, and predictions on them do no harm."""

from __future__ import annotations

import pytest
from webhook_intelligence.prediction.evaluation import evaluate
from webhook_intelligence.prediction.predictor import Policy

from services.intelligence.tests.histories import history, trace_of

CHANGELOG = """\
2021-02-13  Ann  <ann@example.org>

\tVersion 1.34

\t* NEWS: Update.

2021-02-08  Bo Lee  <bo@example.org>

\tFix it.

\t* src/a.c (f): Return
\timmediately.
\t* src/b.c, src/c.c: Likewise.

2021-02-08  Ann  <ann@example.org>

\t* src/a.c: First.
"""


def test_a_changelog_becomes_a_trace() -> None:
    trace = trace_of("tar", CHANGELOG.splitlines(keepends=True))
    assert [(seen.context_id, seen.actor) for _, seen in trace] == [
        ("git:tar:file:src/a.c", "Ann"),
        ("git:tar:file:src/a.c", "Bo Lee"),
        ("git:tar:file:src/b.c", "Bo Lee"),
        ("git:tar:file:src/c.c", "Bo Lee"),
        ("git:tar:file:NEWS", "Ann"),
    ]
    times = [seen.at_s for _, seen in trace]
    assert times == sorted(times)
    assert times[2] - times[1] == 5
    assert times[4] - times[0] > 4 * 86_400


def test_on_a_real_history_nothing_stays_on_that_does_not_pay() -> None:
    trace = history("tar")
    if not trace:
        pytest.skip("needs /usr/share/doc/tar/changelog.gz: Debian with documentation")
    assert len(trace) > 1000
    report = evaluate(trace[-800:], Policy())
    assert not report.on or (report.together.pays and report.together.pollution < report.together.lift)
