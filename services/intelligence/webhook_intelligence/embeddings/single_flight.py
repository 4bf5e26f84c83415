"""Vectors for many callers at once: each text is asked for once, in as few calls as the provider takes.

A text goes: prepare → is the same one under way here? → cache → is another replica at it? → a batch with
whatever else waits → provider.
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
from webhook_shared.errors import Internal, InvalidArgument, ServiceError, Unavailable
from webhook_shared.redis import Backoff

from webhook_intelligence import metrics
from webhook_intelligence.costs.ledger import Ledger, Payer, budget_spent
from webhook_intelligence.costs.prices import Usage
from webhook_intelligence.embeddings.batches import Batches, Bounds, Lane, Waiting
from webhook_intelligence.embeddings.cache import EmbeddingCache
from webhook_intelligence.embeddings.leases import Leases
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel, EmbeddingProvider, pooled
from webhook_intelligence.texts.redaction import redacted_head

log = structlog.get_logger()

LONGEST_TEXT_BYTES = 2**20
# Preparing a full request may take a while; others get a turn after so much of it.
TURN_CHARS = 64 * 1024
# How often those that wait for another replica look for its vectors, at first and at most.
LOOK_EVERY_S = 0.02
LOOK_SELDOM_S = 0.25
# Vectors that have just been made or found are at hand for a moment, so many at most.
REMEMBERED_S = 2.0
MOST_REMEMBERED = 4096

Outcome = Embedding | ServiceError


@dataclass(frozen=True)
class _Flight:
    """One text on its way, for all who want it."""

    key: str
    text: str
    lane: Lane
    deadline: float
    landed: asyncio.Future[Outcome]


class Embeddings:
    """The vectors of one model. Use as an async context manager."""

    def __init__(
        self,
        provider: EmbeddingProvider,
        cache: EmbeddingCache,
        ledger: Ledger,
        *,
        batch_texts: int,
        linger_s: float = 0.0,
        leases: Leases | None = None,
    ) -> None:
        """Serve a model.

        Args:
            provider: Who makes the vectors.
            cache: Where they are kept.
            ledger: Where they are paid.
            batch_texts: Most texts of one call, where the provider does not take fewer.
            linger_s: How long a text waits for company; only where a call is a journey.
            leases: With them replicas ask for a text only once among them.
        """
        limits = provider.limits
        self._provider = provider
        self._cache = cache
        self._ledger = ledger
        self._leases = leases if limits.is_remote and cache.is_on else None
        self._flights: dict[str, _Flight] = {}
        self._coming: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        bounds = Bounds(
            texts=min(batch_texts, limits.batch_texts),
            tokens=limits.batch_tokens,
            bytes=limits.batch_bytes,
            linger_s=linger_s if limits.is_remote else 0.0,
            mixed=limits.is_remote,
        )
        self._batches = Batches(self._ask, bounds, provider.pace)

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

    async def embed(
        self, payer: Payer, texts: Sequence[str], *, timeout_s: float, lane: Lane = Lane.QUERY
    ) -> list[Outcome]:
        """One outcome per text, in order.

        Args:
            payer: Whose budget and whose cache; vectors are not shared between tenants.
            texts: Any number.
            timeout_s: How long the caller waits; the provider is not asked again after that.
            lane: How urgent they are. A text that is under way already keeps its place.

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
            flight, is_new = self._board(payer.tenant, prepare(text, text_chars), lane, deadline)
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

    def _board(self, tenant: str, text: str, lane: Lane, deadline: float) -> tuple[_Flight, bool]:
        key = self._cache.key(tenant, text)
        flight = self._flights.get(key)
        if flight is not None:
            metrics.CACHE.labels("joined").inc()
            return flight, False
        flight = _Flight(key, text, lane, deadline, asyncio.get_running_loop().create_future())
        self._flights[key] = flight
        return flight, True

    def _take_off(self, payer: Payer, flights: list[_Flight]) -> None:
        if flights:
            task = asyncio.create_task(self._fly(payer, flights))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, payer: Payer, flights: list[_Flight]) -> None:
        # Until each of them waits for a batch, or will not, what is in the batch now has company coming.
        self._coming.update(flight.key for flight in flights)
        self._batches.expect(len(flights))
        try:
            missing = await self._look_up(flights, "hit")
            metrics.CACHE.labels("miss").inc(len(missing))
            if missing and self._leases is not None:
                await self._among_replicas(self._leases, payer, missing)
            elif missing:
                await self._cache.keep(await self._ask_for(payer, missing))
        finally:
            for flight in flights:
                self._land(flight, Internal())
            self._part_with(flights)

    async def _look_up(self, flights: Sequence[_Flight], found_as: str) -> list[_Flight]:
        """Land those whose vectors are in the cache; the others are returned."""
        known = await self._cache.find([flight.key for flight in flights])
        missing = []
        for flight, embedding in zip(flights, known, strict=True):
            if embedding is None:
                missing.append(flight)
            else:
                self._land(flight, embedding)
        metrics.CACHE.labels(found_as).inc(len(flights) - len(missing))
        return missing

    async def _among_replicas(self, leases: Leases, payer: Payer, flights: list[_Flight]) -> None:
        """Ask for what no other replica asks for; wait for the rest, and take over from one that has died."""
        backoff = Backoff(base_s=LOOK_EVERY_S, cap_s=LOOK_SELDOM_S)
        now = asyncio.get_running_loop().time
        leading: list[asyncio.Task[None]] = []
        try:
            while flights:
                ours = await leases.take([flight.key for flight in flights])
                if ours:
                    led = [flight for flight in flights if flight.key in ours]
                    leading.append(asyncio.create_task(self._lead(leases, payer, led)))
                flights = [flight for flight in flights if flight.key not in ours]
                if not flights:
                    break
                for flight in flights:
                    self._not_coming(flight)
                await asyncio.sleep(LOOK_EVERY_S + backoff.next_delay_s())
                for flight in [flight for flight in flights if flight.deadline <= now()]:
                    self._land(
                        flight, Unavailable("PROVIDER_UNREACHABLE", "another replica asks, too slowly")
                    )
                flights = await self._look_up([one for one in flights if not one.landed.done()], "awaited")
        finally:
            await asyncio.gather(*leading)

    async def _lead(self, leases: Leases, payer: Payer, flights: list[_Flight]) -> None:
        async with leases.held([flight.key for flight in flights]):
            # Between our look and our lease another replica may have come to its end.
            missing = await self._look_up(flights, "awaited")
            if missing:
                await self._cache.keep(await self._ask_for(payer, missing))

    async def _ask_for(self, payer: Payer, flights: list[_Flight]) -> dict[str, Embedding]:
        """Land what the provider makes of those that the budget holds; what it has made, by key."""
        count = self._provider.count_tokens
        reservation = await self._ledger.reserve(
            payer, self.model.name, [Usage(count(flight.text)) for flight in flights]
        )
        paid = []
        for flight, fits in zip(flights, reservation.admitted, strict=True):
            if fits:
                paid.append(flight)
            else:
                self._land(flight, budget_spent())
        made: dict[str, Embedding] = {}
        try:
            # Tasks first, as they come: as_completed alone would start them in any order.
            arrivals = [asyncio.create_task(self._arrival(flight)) for flight in paid]
            for asked in asyncio.as_completed(arrivals):
                flight, outcome = await asked
                self._land(flight, outcome)
                if isinstance(outcome, Embedding):
                    made[flight.key] = outcome
        finally:
            used = Usage(sum(embedding.tokens for embedding in made.values()))
            self._ledger.settle(reservation, used, answered=len(made) == len(flights))
        return made

    async def _arrival(self, flight: _Flight) -> tuple[_Flight, Outcome]:
        """What became of a text, put together again where it went in pieces."""
        self._not_coming(flight)
        pieces = self._provider.pieces(flight.text)
        counts = list(map(self._provider.count_tokens, pieces))
        try:
            results = await asyncio.gather(
                *(
                    self._batches.submit(piece, tokens=count, lane=flight.lane, deadline=flight.deadline)
                    for piece, count in zip(pieces, counts, strict=True)
                )
            )
        except ServiceError as error:
            return flight, error
        except Exception:
            log.exception("embedding.failed")
            return flight, Internal()
        parts = [result for result in results if isinstance(result, Embedding)]
        failed = next((result for result in results if isinstance(result, ServiceError)), None)
        return flight, failed or pooled(parts, counts)

    def _part_with(self, flights: list[_Flight]) -> None:
        """Let those that have landed go; a moment later, since who wants the same often comes behind."""
        if REMEMBERED_S and self._cache.is_on and len(self._flights) <= MOST_REMEMBERED:
            asyncio.get_running_loop().call_later(REMEMBERED_S, self._forget, flights)
        else:
            self._forget(flights)

    def _forget(self, flights: list[_Flight]) -> None:
        for flight in flights:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]

    def _not_coming(self, flight: _Flight) -> None:
        """It waits for a batch now, or for something else."""
        if flight.key in self._coming:
            self._coming.discard(flight.key)
            self._batches.expect(-1)

    def _land(self, flight: _Flight, outcome: Outcome) -> None:
        self._not_coming(flight)
        if not flight.landed.done():
            flight.landed.set_result(outcome)
            if isinstance(outcome, ServiceError):
                # The next who asks may have better luck.
                self._forget([flight])

    async def _ask(self, batch: list[Waiting]) -> list[Outcome]:
        """One batch. The same text of several tenants goes out once."""
        texts = list(dict.fromkeys(waiting.text for waiting in batch))
        name = self.model.provider
        metrics.BATCH_TEXTS.labels(name).observe(len(texts))
        began = time.perf_counter()
        try:
            deadline = max(waiting.deadline for waiting in batch)
            urgent = any(waiting.lane is Lane.QUERY for waiting in batch)
            results = await self._provider.embed(texts, deadline=deadline, urgent=urgent)
        finally:
            metrics.EMBEDDING_S.labels(name).observe(time.perf_counter() - began)
        sharers = Counter(waiting.text for waiting in batch)
        by_text: dict[str, Outcome] = {
            # Who asks for the same text pays for it together.
            text: replace(result, tokens=math.ceil(result.tokens / sharers[text]))
            if isinstance(result, Embedding) and sharers[text] > 1
            else result
            for text, result in zip(texts, results, strict=True)
        }
        return [by_text[waiting.text] for waiting in batch]


def unusable(text: str) -> ServiceError | None:
    """Why a text can't be embedded or summarised, if it can't."""
    if not text.strip():
        return InvalidArgument("the text is empty", reason="TEXT_EMPTY")
    if len(text) > LONGEST_TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > LONGEST_TEXT_BYTES:
        return InvalidArgument("the text is longer than 1 MiB", reason="TEXT_TOO_LONG")
    return None


def prepare(text: str, chars: int) -> str:
    """The text as the provider sees it: cut, nothing secret or hidden, in one Unicode form, plain line ends.

    A change here needs a new `cache.NORMALIZER`.
    """
    head = redacted_head(text.lstrip(), chars).replace("\r\n", "\n").rstrip()
    # What shows nothing at all is still a text, and providers refuse an empty one.
    return unicodedata.normalize("NFC", head) or "-"


def _outcome(flight: _Flight, was_cut: bool) -> Outcome:
    outcome = flight.landed.result()
    if was_cut and isinstance(outcome, Embedding):
        return replace(outcome, truncated=True)
    return outcome
