"""A provider that is away while webhooks come in: the whole system, real processes, a steady load.

Events go on into their contexts, enrichment waits, the provider is left alone but for probes; once it is
back, everything is understood.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook_intelligence.providers.breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S

from services.intelligence.tests import openai_server as provider
from tests.bench.e2e.__main__ import Watch, figures_of, generating
from tests.system import running_house

WARM_UP_S = 3


async def outage(outage_s: float, events_per_s: float) -> dict[str, Any]:
    """Figures before and during; calls that the provider got; when all was understood, and what was not."""
    away = False

    def handler(_: str, body: dict[str, Any]) -> provider.Answer:
        return provider.refused(503) if away else provider.embeddings(body)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(provider.serving(handler, delay_s=0.02))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="webhook-bench-"))
        environ = {
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": server.url,
            "AI_SUMMARIZATION_MODEL": "extractive",
        }
        house = await stack.enter_async_context(running_house(Path(directory), environ=environ))
        generator = await stack.enter_async_context(generating(house))
        await generator.send(int(WARM_UP_S * events_per_s), events_per_s, Watch(house))

        # For as long without it as with it: the longer one looks, the more slow moments a p99 has in it.
        count, before = int(outage_s * events_per_s), Watch(house)
        quiet = figures_of(before, await generator.send(count, events_per_s, before))
        asked, away = len(server.requests), True
        during = Watch(house)
        stormy = figures_of(during, await generator.send(count, events_per_s, during))
        asked = len(server.requests) - asked
        _, waiting = await during.backlog()
        away, began = False, time.monotonic()
        await during.drained(0)
        await during.drained(1)
        caught_up_s = time.monotonic() - began
        stats = await house.operator.context_admin.GetStats(admin_pb2.GetStatsRequest())
        left = sum(tenant.context_count - tenant.indexed_count for tenant in stats.tenants)
    return {
        "outage_s": outage_s,
        "outage_events_per_s": round(stormy["requests_per_s"], 1),
        "outage_calls": asked,
        "outage_calls_most": calls_most(outage_s),
        "outage_waiting": waiting,
        "outage_caught_up_s": round(caught_up_s, 1),
        "outage_lost": left + before.missing + during.missing,
        "outage_errors": round(stormy["error_rate"], 5),
        **{
            f"outage_{name}_{when}": figures[name]
            for name in ("p99_ms", "http_p99_ms")
            for when, figures in (("before", quiet), ("during", stormy))
        },
    }


def calls_most(outage_s: float) -> int:
    """What the breaker lets through in so long: the failures that open it, and a probe after each pause."""
    probes, at_s, pause_s = 0, FIRST_PAUSE_S, FIRST_PAUSE_S
    while at_s <= outage_s:
        probes += 1
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        at_s += pause_s
    return FAILURES + probes
