"""What a call would cost, before it is made."""

from __future__ import annotations

from collections.abc import Sequence

from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook_shared.errors import Unavailable

from webhook_intelligence import messages
from webhook_intelligence.analysis import Analyst
from webhook_intelligence.costs.budgets import Spent
from webhook_intelligence.costs.ledger import Ledger, Payer
from webhook_intelligence.costs.prices import NANO, Usage
from webhook_intelligence.embeddings.single_flight import Embeddings
from webhook_intelligence.summaries.extractive import Summarizer
from webhook_intelligence.texts.subject import Subject


class Estimator:
    """Reckons as the calls themselves do, but asks no provider and spends nothing."""

    def __init__(
        self, embeddings: Embeddings, summarizer: Summarizer, analyst: Analyst, ledger: Ledger
    ) -> None:
        self._embeddings = embeddings
        self._summarizer = summarizer
        self._analyst = analyst
        self._ledger = ledger

    async def embed(self, tenant: str, texts: Sequence[str]) -> pb.EstimateResponse:
        """Of `Embed`."""
        usage, known = await self._embeddings.expect(Payer(tenant, "embed"), texts)
        return await self._answer(tenant, [self._vectors("embed", usage, known)])

    async def summarize(self, tenant: str, texts: Sequence[str], max_words: int) -> pb.EstimateResponse:
        """Of `Summarize`."""
        usage = self._summarizer.expect(texts, max_words=max_words)
        return await self._answer(tenant, [self._summaries("summarize", usage)])

    async def analyze(self, tenant: str, subjects: Sequence[Subject]) -> pb.EstimateResponse:
        """Of `Analyze`."""
        summaries, vectors, known = await self._analyst.expect(Payer(tenant, "analyze"), subjects)
        costs = [self._summaries("analyze", summaries), self._vectors("analyze", vectors, known)]
        return await self._answer(tenant, costs)

    def _vectors(self, purpose: str, usage: Usage, known: int) -> pb.Cost:
        cost = self._cost(self._embeddings.model.name, purpose, usage)
        cost.model.CopyFrom(messages.model(self._embeddings.model))
        cost.cached_count = known
        return cost

    def _summaries(self, purpose: str, usage: Usage) -> pb.Cost:
        return self._cost(self._summarizer.model, purpose, usage)

    def _cost(self, model: str, purpose: str, usage: Usage) -> pb.Cost:
        return pb.Cost(
            model=pb.EmbeddingModel(name=model),
            purpose=purpose,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            usd=self._ledger.prices.nano_usd(model, usage) / NANO,
            priced=self._ledger.prices.knows(model),
        )

    async def _answer(self, tenant: str, costs: list[pb.Cost]) -> pb.EstimateResponse:
        usd = sum(cost.usd for cost in costs)
        tokens = sum(cost.input_tokens + cost.output_tokens for cost in costs)
        budget = self._ledger.budgets.of(tenant)
        try:
            spent = await self._ledger.spent(tenant) if budget.is_limited else Spent()
        except Unavailable:
            # The call itself would go by what the process knows, too.
            spent = Spent()
        return pb.EstimateResponse(
            costs=costs, usd=usd, within_budget=spent.holds(budget, round(usd * NANO), tokens)
        )
