"""Refusals are counted in full, logged a little, and repeat nothing of what came."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from webhook_security.evidence.rejections import Rejections
from webhook_security.refusals import Refusal


def count(cause: str) -> float:
    return REGISTRY.get_sample_value("webhook_security_violations_total", {"violation_type": cause}) or 0.0


def test_every_refusal_counts_and_few_are_written(deliver: Any) -> None:
    now = 0.0
    rejections = Rejections(clock=lambda: now)
    before = count("signature_invalid")
    delivery = deliver("github", b"body", {})
    with capture_logs() as logs:
        for _ in range(100):
            rejections.refused(Refusal.SIGNATURE_INVALID, delivery, None)
        rejections.refused(Refusal.SIGNATURE_MISSING, delivery, None)
        now = 1.5
        rejections.refused(Refusal.SIGNATURE_INVALID, delivery, None)
    assert count("signature_invalid") - before == 101
    assert [(line["cause"], line["unwritten"]) for line in logs] == [
        ("signature_invalid", 0),
        ("signature_missing", 0),
        ("signature_invalid", 99),
    ]


def test_a_line_holds_no_payload_and_no_hostile_name(deliver: Any) -> None:
    with capture_logs() as logs:
        delivery = deliver("x\n{evil}", b"hunter2", {})
        Rejections().refused(Refusal.UNKNOWN_SOURCE, delivery, None)
    [line] = logs
    assert "hunter2" not in str(line)
    assert "evil" not in str(line)
    assert line["body_sha256"] == "f52fbd32b2b3"
    assert line["size_bytes"] == 7


def test_made_up_names_do_not_fill_the_memory(deliver: Any) -> None:
    rejections = Rejections(clock=lambda: 0.0)
    with capture_logs():
        for number in range(5000):
            rejections.refused(Refusal.UNKNOWN_SOURCE, deliver(f"tool-{number}", b"", {}), None)
    assert len(rejections._written) <= 1024


def test_metrics_name_no_tool_that_is_not_configured(judge: Any, deliver: Any) -> None:
    judge(deliver("made-up-by-a-prober", b"{}", {}))
    for family in REGISTRY.collect():
        for sample in family.samples:
            assert "made-up-by-a-prober" not in sample.labels.values()
