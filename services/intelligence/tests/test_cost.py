"""What calls cost, over the wire: estimated, refused, booked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_intelligence.providers.openai import _shares
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import Role

from services.intelligence.tests import openai_server as fake
from services.intelligence.tests.conftest import Started, counted

RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
TOKENS_OF_A_TEXT = 40
CONFIGURATION = """
webhook:
  ai:
    prices:
      text-embedding-3-small: {{input_usd: 1000}}
      gpt-test: {{input_usd: 1000, output_usd: 2000}}
    budget:
      daily_usd: {daily_usd}
      tenants: {{rich: {{daily_usd: 1000}}}}
"""


def answer(path: str, body: dict[str, Any]) -> fake.Answer:
    """Embeds and summarises, and bills as a provider does."""
    if path.endswith("/embeddings"):
        status, headers, content = fake.embeddings(body)
        billed = TOKENS_OF_A_TEXT * len(body["input"])
        usage = {"prompt_tokens": billed, "total_tokens": billed}
    else:
        status, headers, content = fake.chat('{"summary": "All is well."}')
        usage = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
    return status, headers, json.dumps({**json.loads(content), "usage": usage}).encode()


@asynccontextmanager
async def paying(
    start: Started, tmp_path: Path, daily_usd: float
) -> AsyncIterator[tuple[IntelligenceServiceStub, fake.Server]]:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIGURATION.format(daily_usd=daily_usd))
    async with fake.serving(answer) as server:
        house = await start(
            OPENAI_API_KEY="sk-test",
            OPENAI_BASE_URL=server.url,
            AI_SUMMARIZATION_MODEL="gpt-test",
            WEBHOOK_CONFIG=str(file),
        )
        yield await house.stub(roles=(Role.READER, Role.WRITER), tenants=("acme", "rich")), server


def texts(count: int) -> list[str]:
    # About forty tokens each, by our own estimate too.
    return [
        f"event {i:03}: " + "the deployment of the payment service failed again, " * 3 for i in range(count)
    ]


async def test_a_spent_budget_fails_item_by_item_and_before_the_call(start: Started, tmp_path: Path) -> None:
    async with paying(start, tmp_path, daily_usd=0.3) as (stub, server):
        first = await stub.Embed(pb.EmbedRequest(tenant="acme", texts=texts(2)))
        assert [result.status.code for result in first.results] == [0, 0]
        before = counted("webhook_ai_budget_refusals_total", purpose="embed")
        # Two are known and cost nothing; of the rest the budget holds some.
        second = await stub.Embed(pb.EmbedRequest(tenant="acme", texts=texts(12)))
        statuses = [(result.status.code, result.status.reason) for result in second.results]
        assert statuses[:3] == [(0, "")] * 3
        assert statuses[-1] == (RESOURCE_EXHAUSTED, "BUDGET_SPENT")
        refused = sum(code == RESOURCE_EXHAUSTED for code, _ in statuses)
        assert counted("webhook_ai_budget_refusals_total", purpose="embed") - before == refused
        sent = sum(len(request["input"]) for request in server.requests)
        assert sent == 2 + 10 - refused
        # The neighbour is another tenant with a budget of its own.
        rich = await stub.Embed(pb.EmbedRequest(tenant="rich", texts=texts(12)))
        assert {result.status.code for result in rich.results} == {0}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Summarize(pb.SummarizeRequest(tenant="acme", texts=texts(9)))
        assert from_rpc_error(caught.value).reason == "BUDGET_SPENT"
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        analysed = await stub.Analyze(
            pb.AnalyzeRequest(
                subjects=[
                    pb.Subject(tenant=tenant, title="x", happenings=[pb.Happening(text=texts(1)[0])])
                    for tenant in ("acme", "rich")
                ]
            )
        )
        assert [one.status.reason for one in analysed.analyses] == ["BUDGET_SPENT", ""]


async def test_an_estimate_is_what_it_then_costs(start: Started, tmp_path: Path) -> None:
    async with paying(start, tmp_path, daily_usd=0) as (stub, server):
        call = pb.EmbedRequest(tenant="acme", texts=[*texts(10), texts(1)[0]])
        # The first call teaches how many tokens the provider counts.
        for i in range(40):
            await stub.Embed(pb.EmbedRequest(tenant="acme", texts=[f"{i} {texts(1)[0]}"]))
        asked = len(server.requests)
        estimate = await stub.Estimate(pb.EstimateRequest(embed=call))
        assert len(server.requests) == asked
        (cost,) = estimate.costs
        assert (cost.model.name, cost.purpose, cost.priced) == ("text-embedding-3-small", "embed", True)
        # The same text twice is paid once.
        assert cost.cached_count == 1
        assert cost.input_tokens == pytest.approx(10 * TOKENS_OF_A_TEXT, rel=0.05)
        assert estimate.usd == pytest.approx(cost.input_tokens / 1000)
        await stub.Embed(call)
        known = await stub.Estimate(pb.EstimateRequest(embed=call))
        assert (known.usd, known.costs[0].cached_count, known.within_budget) == (0, 11, True)
        books = await stub.GetSpending(pb.GetSpendingRequest(tenant="acme"))
        (line,) = books.spendings
        assert (line.model, line.purpose) == ("text-embedding-3-small", "embed")
        assert line.input_tokens == (40 + 10) * TOKENS_OF_A_TEXT
        assert line.usd == pytest.approx(line.input_tokens / 1000)
        assert books.budget.spent_today_usd == pytest.approx(line.usd)
        assert not (await stub.GetSpending(pb.GetSpendingRequest(tenant="rich"))).spendings


async def test_summaries_and_analyses_are_estimated_and_booked(start: Started, tmp_path: Path) -> None:
    async with paying(start, tmp_path, daily_usd=0.2) as (stub, server):
        subject = pb.Subject(tenant="rich", title="x", happenings=[pb.Happening(text=texts(1)[0])])
        analyze = pb.AnalyzeRequest(subjects=[subject])
        estimate = await stub.Estimate(pb.EstimateRequest(analyze=analyze))
        assert [cost.model.name for cost in estimate.costs] == ["gpt-test", "text-embedding-3-small"]
        assert all(cost.input_tokens > 0 for cost in estimate.costs)
        assert estimate.costs[0].output_tokens > 0
        assert estimate.within_budget
        poor = await stub.Estimate(
            pb.EstimateRequest(summarize=pb.SummarizeRequest(tenant="acme", texts=texts(50)))
        )
        assert not poor.within_budget
        assert server.requests == []
        await stub.Analyze(analyze)
        books = await stub.GetSpending(pb.GetSpendingRequest(tenant="rich", days=2))
        booked = {line.model: line for line in books.spendings}
        assert (booked["gpt-test"].input_tokens, booked["gpt-test"].output_tokens) == (300, 20)
        assert booked["gpt-test"].usd == pytest.approx(0.34)
        assert {line.purpose for line in books.spendings} == {"analyze"}
        assert books.budget.daily_usd == 1000


async def test_the_local_model_costs_tokens_but_no_money(
    stub: IntelligenceServiceStub, redis: Client
) -> None:
    estimate = await stub.Estimate(pb.EstimateRequest(embed=pb.EmbedRequest(texts=["hello", "world"])))
    assert (estimate.usd, estimate.costs[0].priced, estimate.within_budget) == (0, True, True)
    await stub.Embed(pb.EmbedRequest(texts=["hello", "world"]))
    (line,) = (await stub.GetSpending(pb.GetSpendingRequest())).spendings
    assert (line.model, line.usd) == ("all-MiniLM-L6-v2", 0)
    assert line.input_tokens == 6
    for call in (
        stub.Estimate(pb.EstimateRequest()),
        stub.Estimate(pb.EstimateRequest(embed=pb.EmbedRequest())),
        stub.GetSpending(pb.GetSpendingRequest(days=367)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSpending(pb.GetSpendingRequest(tenant="rich"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_shares_of_a_bill_add_up() -> None:
    assert sum(_shares(1001, [3, 3, 7, 100])) == 1001
    assert _shares(0, [3, 4]) == [3, 4]
    assert _shares(10, [1, 1]) == [5, 5]
