"""Refusals are counted in full, logged a little, and repeat nothing of what came."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from webhook_security.refusals import Refusal
from webhook_security.rejections import Rejections


def count(cause: str) -> float:
    return REGISTRY.get_sample_value("webhook_security_violations_total", {"violation_type": cause}) or 0.0


def test_every_refusal_counts_and_few_are_written() -> None:
    now = 0.0
    rejections = Rejections(clock=lambda: now)
    before = count("signature_invalid")
    with capture_logs() as logs:
        for _ in range(100):
            rejections.refused(Refusal.SIGNATURE_INVALID, "", "github", "203.0.113.7", b"body")
        rejections.refused(Refusal.SIGNATURE_MISSING, "", "github", "203.0.113.7", b"body")
        now = 1.5
        rejections.refused(Refusal.SIGNATURE_INVALID, "", "github", "203.0.113.8", b"body")
    assert count("signature_invalid") - before == 101
    assert [(line["cause"], line["unwritten"]) for line in logs] == [
        ("signature_invalid", 0),
        ("signature_missing", 0),
        ("signature_invalid", 99),
    ]


def test_a_line_holds_no_payload_and_no_hostile_name() -> None:
    with capture_logs() as logs:
        Rejections().refused(Refusal.UNKNOWN_SOURCE, "", "x\n{evil}", "203.0.113.7", b"hunter2")
    [line] = logs
    assert "hunter2" not in str(line)
    assert "evil" not in str(line)
    assert line["body_sha256"] == "f52fbd32b2b3"
    assert line["size_bytes"] == 7


def test_made_up_names_do_not_fill_the_memory() -> None:
    rejections = Rejections(clock=lambda: 0.0)
    with capture_logs():
        for number in range(5000):
            rejections.refused(Refusal.UNKNOWN_SOURCE, "", f"tool-{number}", "203.0.113.7", b"")
    assert len(rejections._written) <= 1024


def test_metrics_name_no_tool_that_is_not_configured(judge: Any, deliver: Any) -> None:
    judge(deliver("made-up-by-a-prober", b"{}", {}))
    for family in REGISTRY.collect():
        for sample in family.samples:
            assert "made-up-by-a-prober" not in sample.labels.values()
