"""All that is to be known of a context, put together: vector, summary, importance, entities."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from webhook_shared.errors import InvalidArgument, ServiceError

from webhook_intelligence import importance
from webhook_intelligence.costs.ledger import Payer
from webhook_intelligence.costs.prices import NOTHING, Usage
from webhook_intelligence.embeddings.batches import Lane
from webhook_intelligence.embeddings.single_flight import Embeddings
from webhook_intelligence.importance import Importance
from webhook_intelligence.providers.protocol import EmbeddingModel, Vector
from webhook_intelligence.settings import EXTRACTIVE
from webhook_intelligence.summaries.extractive import Summarizer, Summary, roll
from webhook_intelligence.texts import entities
from webhook_intelligence.texts.entities import Entity
from webhook_intelligence.texts.sentences import clip
from webhook_intelligence.texts.subject import Subject

SUMMARY_WORDS = 80
# What of a context goes into its vector. The cost of a vector grows with its text, and the summary says what
# the context is about and always what happened last.
EMBEDDED_SUMMARY_WORDS = 48
EMBEDDED_TITLE_WORDS = 24


@dataclass(frozen=True, eq=False)
class Analysis:
    """What one context turned out to be.

    Attributes:
        event_ids: Of its happenings, which the summary's sentences rest on.
    """

    vector: Vector
    model: EmbeddingModel
    summary: Summary
    event_ids: tuple[str, ...]
    importance: Importance
    entities: tuple[Entity, ...]


@dataclass(frozen=True)
class _Reading:
    """The part that needs no vector yet."""

    subject: Subject
    summary: Summary
    entities: tuple[Entity, ...]


class Analyst:
    """Reads contexts."""

    def __init__(self, embeddings: Embeddings, summarizer: Summarizer) -> None:
        self._embeddings = embeddings
        self._summarizer = summarizer

    async def analyze(
        self,
        payer: Payer,
        subjects: Sequence[Subject],
        *,
        timeout_s: float,
        lane: Lane = Lane.EVENT,
        may_defer: bool = False,
        embeddings: Embeddings | None = None,
    ) -> list[Analysis | ServiceError]:
        """One outcome per subject, in order; a bad one never fails its neighbours.

        Args:
            payer: Whose they all are.
            subjects: Any number.
            timeout_s: How long the caller waits.
            lane: How urgent they are.
            may_defer: See `Summarizer.roll`.
            embeddings: Whose vectors; None: the usual.

        Returns:
            Per subject an analysis, or INVALID_ARGUMENT/SUBJECT_EMPTY where there is nothing to read,
            UNAVAILABLE/PROVIDER_UNREACHABLE, FAILED_PRECONDITION/PROVIDER_REFUSED,
            RESOURCE_EXHAUSTED/BUDGET_SPENT.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        embeddings = embeddings or self._embeddings
        readings = await asyncio.gather(
            *(self._read(payer, subject, deadline, may_defer=may_defer) for subject in subjects)
        )
        good = [reading for reading in readings if isinstance(reading, _Reading)]
        embedded = iter(
            await embeddings.embed(
                payer,
                [_embedded_text(reading) for reading in good],
                timeout_s=deadline - loop.time(),
                lane=lane,
            )
        )
        outcomes: list[Analysis | ServiceError] = []
        for reading in readings:
            if isinstance(reading, ServiceError):
                outcomes.append(reading)
                continue
            embedding = next(embedded)
            if isinstance(embedding, ServiceError):
                outcomes.append(embedding)
                continue
            weighed = importance.weigh(reading.subject, reading.entities)
            event_ids = tuple(happening.event_id for happening in reading.subject.happenings)
            outcomes.append(
                Analysis(
                    embedding.vector, embeddings.model, reading.summary, event_ids, weighed, reading.entities
                )
            )
        return outcomes

    async def _read(
        self, payer: Payer, subject: Subject, deadline: float, *, may_defer: bool
    ) -> _Reading | ServiceError:
        # Each is a few milliseconds of work at most; between two of them others get a turn.
        await asyncio.sleep(0)
        readable = subject.readable()
        if is_empty(readable):
            return InvalidArgument("the subject has no title, summary or happenings", reason="SUBJECT_EMPTY")
        try:
            summary = await self._summarizer.roll(
                readable, payer=payer, max_words=SUMMARY_WORDS, deadline=deadline, may_defer=may_defer
            )
        except ServiceError as error:
            return error
        return _Reading(readable, summary, tuple(named_in(readable)))

    async def expect(self, payer: Payer, subjects: Sequence[Subject]) -> tuple[Usage, Usage, int]:
        """What `analyze` would ask for: of the summariser, of the embedder, and vectors that are known."""
        readable = [subject.readable() for subject in subjects]
        readable = [subject for subject in readable if not is_empty(subject)]
        summaries = sum(
            (self._summarizer.expect_roll(subject, max_words=SUMMARY_WORDS) for subject in readable), NOTHING
        )
        likely = []
        for subject in readable:
            # Another summariser would say it otherwise, in about as many words.
            likely.append(_Reading(subject, Summary(roll(subject, SUMMARY_WORDS), EXTRACTIVE), ()))
            await asyncio.sleep(0)
        vectors, known = await self._embeddings.expect(payer, [_embedded_text(reading) for reading in likely])
        return summaries, vectors, known


def is_empty(subject: Subject) -> bool:
    """Whether there is nothing to read."""
    return not (subject.title or subject.summary or subject.happenings)


def named_in(subject: Subject) -> list[Entity]:
    """What a readable subject names."""
    return entities.find(
        [subject.title, *(happening.text for happening in reversed(subject.happenings))],
        people=dict.fromkeys(happening.actor for happening in subject.happenings),
        context_id=subject.context_id,
    )


def _embedded_text(reading: _Reading) -> str:
    summary = clip(reading.summary.text, EMBEDDED_SUMMARY_WORDS)
    title = clip(reading.subject.title, EMBEDDED_TITLE_WORDS)
    # The first summary of a context quotes its title.
    parts = [summary] if title in summary else [title, summary]
    return "\n".join(part for part in parts if part) or reading.subject.context_id or "-"
