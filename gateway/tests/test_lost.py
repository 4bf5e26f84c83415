"""Deliveries that nobody will send again are told to operators when they are turned away."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from webhook.security.v1 import admission_pb2 as admission


def lost(tool: str) -> float:
    return REGISTRY.get_sample_value("webhook_deliveries_lost_total", {"tool": tool}) or 0.0


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (admission.REFUSAL_INTERNAL, (503, 1)),
        (admission.REFUSAL_RATE, (429, 1)),
        (admission.REFUSAL_SIGNATURE_INVALID, (401, 0)),
    ],
)
async def test_what_a_sender_never_sends_again_is_counted(
    house_with: Any, kit: Any, judge: Any, cause: int, told: tuple[int, int]
) -> None:
    status, counts = told
    judge.sources = [kit.policy("github"), kit.policy("jira", sender_retries=True)]
    before = lost("github"), lost("jira")
    async with house_with() as house:
        for tool in ("github", "jira"):
            request = kit.post(b'"cause"', path=f"/webhooks/{tool}", extra=f"X-Cause: {cause}\r\n")
            assert (await house.ask(request)).status == status
    assert (lost("github") - before[0], lost("jira") - before[1]) == (counts, 0)
