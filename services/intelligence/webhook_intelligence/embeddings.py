"""Vectors for many callers at once: each text is asked for once, in as few calls as the provider takes.

A text goes: prepare → is the same one under way? → cache → a batch with whatever else waits → provider.
"""

from __future__ import annotations

import asyncio
import math
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import structlog
from webhook_shared.coalesce import Coalescer
from webhook_shared.errors import Internal, InvalidArgument, ServiceError

from webhook_intelligence import metrics
from webhook_intelligence.cache import EmbeddingCache
from webhook_intelligence.ledger import Ledger, Payer, budget_spent
from webhook_intelligence.prices import Usage
from webhook_intelligence.provider import Embedding, EmbeddingModel, EmbeddingProvider
from webhook_intelligence.redaction import redacted_head

log = structlog.get_logger()

LONGEST_TEXT_BYTES = 2**20
# Preparing a full request may take a while; others get a turn after so much of it.
TURN_CHARS = 64 * 1024

Outcome = Embedding | ServiceError


@dataclass(frozen=True)
class _Job:
    text: str
    deadline: float


@dataclass(frozen=True)
class _Flight:
    """One text on its way, for all who want it."""

    key: str
    job: _Job
    landed: asyncio.Future[Outcome]


class Embeddings:
    """The vectors of one model. Use as an async context manager."""

    def __init__(
        self, provider: EmbeddingProvider, cache: EmbeddingCache, ledger: Ledger, *, batch_texts: int
    ) -> None:
        limits = provider.limits
        self._provider = provider
        self._cache = cache
        self._ledger = ledger
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches: Coalescer[_Job, Embedding] = Coalescer(
            self._ask,
            max_items=min(batch_texts, limits.batch_texts),
            in_flight=limits.in_flight,
            max_weight=limits.batch_tokens,
            weigh=lambda job: provider.count_tokens(job.text),
        )

    @property
    def model(self) -> EmbeddingModel:
        """Whose vectors these are."""
        return self._provider.model

    async def __aenter__(self) -> Self:
        await self._batches.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._batches.__aexit__(kind, error, trace)

    async def embed(self, payer: Payer, texts: Sequence[str], *, timeout_s: float) -> list[Outcome]:
        """One outcome per text, in order.

        Args:
            payer: Whose budget and whose cache; vectors are never shared between tenants.
            texts: Any number.
            timeout_s: How long the caller waits; the provider is not asked again after that.

        Returns:
            Per text a unit vector, or INVALID_ARGUMENT/TEXT_EMPTY, INVALID_ARGUMENT/TEXT_TOO_LONG,
            UNAVAILABLE/PROVIDER_UNREACHABLE, FAILED_PRECONDITION/PROVIDER_REFUSED,
            RESOURCE_EXHAUSTED/BUDGET_SPENT.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        text_chars = self._provider.limits.text_chars
        wanted: list[tuple[_Flight, bool] | ServiceError] = []
        started: list[_Flight] = []
        chars = 0
        for text in texts:
            error = unusable(text)
            if error is not None:
                wanted.append(error)
                continue
            flight, is_new = self._board(payer.tenant, prepare(text, text_chars), deadline)
            wanted.append((flight, len(text) > text_chars))
            if is_new:
                started.append(flight)
            chars += len(text)
            if chars > TURN_CHARS:
                chars = 0
                self._take_off(payer, started)
                started = []
                await asyncio.sleep(0)
        self._take_off(payer, started)
        waited_for = {entry[0].landed for entry in wanted if not isinstance(entry, ServiceError)}
        if waited_for:
            # Unlike gather, this leaves the flights alone if the caller goes away: others may be on board.
            await asyncio.wait(waited_for)
        return [entry if isinstance(entry, ServiceError) else _outcome(*entry) for entry in wanted]

    def _board(self, tenant: str, text: str, deadline: float) -> tuple[_Flight, bool]:
        key = self._cache.key(tenant, text)
        flight = self._flights.get(key)
        if flight is not None:
            metrics.CACHE.labels("joined").inc()
            return flight, False
        flight = _Flight(key, _Job(text, deadline), asyncio.get_running_loop().create_future())
        self._flights[key] = flight
        return flight, True

    async def expect(self, payer: Payer, texts: Sequence[str]) -> tuple[Usage, int]:
        """What a call with these texts would ask of the provider, and how many texts would cost nothing."""
        chars = self._provider.limits.text_chars
        distinct = set()
        for text in texts:
            if unusable(text) is None:
                distinct.add(prepare(text, chars))
            if len(text) > TURN_CHARS:
                await asyncio.sleep(0)
        by_key = {self._cache.key(payer.tenant, text): text for text in distinct}
        known = await self._cache.find(list(by_key))
        missing = [text for text, found in zip(by_key.values(), known, strict=True) if found is None]
        estimated = Usage(sum(map(self._provider.count_tokens, missing)))
        return self._ledger.calibration.expected(self.model.name, estimated), len(texts) - len(missing)

    def _take_off(self, payer: Payer, flights: list[_Flight]) -> None:
        if flights:
            task = asyncio.create_task(self._fly(payer, flights))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, payer: Payer, flights: list[_Flight]) -> None:
        try:
            known = await self._cache.find([flight.key for flight in flights])
            missing = []
            for flight, embedding in zip(flights, known, strict=True):
                if embedding is None:
                    missing.append(flight)
                else:
                    self._land(flight, embedding)
            metrics.CACHE.labels("hit").inc(len(flights) - len(missing))
            metrics.CACHE.labels("miss").inc(len(missing))
            if missing:
                await self._cache.keep(await self._ask_for(payer, missing))
        finally:
            for flight in flights:
                self._land(flight, Internal())

    async def _ask_for(self, payer: Payer, flights: list[_Flight]) -> dict[str, Embedding]:
        """Land what the provider makes of those that the budget holds; what it has made, by key."""
        count = self._provider.count_tokens
        reservation = await self._ledger.reserve(
            payer,
            self.model.name,
            [Usage(count(flight.job.text)) for flight in flights],
        )
        paid = []
        for flight, fits in zip(flights, reservation.admitted, strict=True):
            if fits:
                paid.append(flight)
            else:
                self._land(flight, budget_spent())
        made: dict[str, Embedding] = {}
        try:
            for asked in asyncio.as_completed([self._arrival(flight) for flight in paid]):
                flight, outcome = await asked
                self._land(flight, outcome)
                if isinstance(outcome, Embedding):
                    made[flight.key] = outcome
        finally:
            used = Usage(sum(embedding.tokens for embedding in made.values()))
            self._ledger.settle(reservation, used, answered=len(made) == len(flights))
        return made

    async def _arrival(self, flight: _Flight) -> tuple[_Flight, Outcome]:
        try:
            return flight, await self._batches.submit(flight.job)
        except ServiceError as error:
            return flight, error
        except Exception:
            log.exception("embedding.failed")
            return flight, Internal()

    def _land(self, flight: _Flight, outcome: Outcome) -> None:
        if not flight.landed.done():
            flight.landed.set_result(outcome)
            del self._flights[flight.key]

    async def _ask(self, jobs: list[_Job]) -> list[Embedding | Exception]:
        """One batch. The same text of several tenants goes out once."""
        texts = list(dict.fromkeys(job.text for job in jobs))
        name = self.model.provider
        metrics.BATCH_TEXTS.labels(name).observe(len(texts))
        began = time.perf_counter()
        try:
            results = await self._provider.embed(texts, deadline=max(job.deadline for job in jobs))
        finally:
            metrics.EMBEDDING_S.labels(name).observe(time.perf_counter() - began)
        sharers = Counter(job.text for job in jobs)
        by_text: dict[str, Embedding | Exception] = {
            # Who asks for the same text pays for it together.
            text: replace(result, tokens=math.ceil(result.tokens / sharers[text]))
            if isinstance(result, Embedding) and sharers[text] > 1
            else result
            for text, result in zip(texts, results, strict=True)
        }
        return [by_text[job.text] for job in jobs]


def unusable(text: str) -> ServiceError | None:
    """Why a text can't be embedded or summarised, if it can't."""
    if not text.strip():
        return InvalidArgument("the text is empty", reason="TEXT_EMPTY")
    if len(text) > LONGEST_TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > LONGEST_TEXT_BYTES:
        return InvalidArgument("the text is longer than 1 MiB", reason="TEXT_TOO_LONG")
    return None


def prepare(text: str, chars: int) -> str:
    """The text as the provider sees it: cut, without secrets, in one Unicode form, with plain line ends.

    A change here needs a new `cache.NORMALIZER`.
    """
    head = redacted_head(text.lstrip(), chars).replace("\r\n", "\n").rstrip()
    return unicodedata.normalize("NFC", head)


def _outcome(flight: _Flight, was_cut: bool) -> Outcome:
    outcome = flight.landed.result()
    if was_cut and isinstance(outcome, Embedding):
        return Embedding(outcome.vector, truncated=True)
    return outcome
