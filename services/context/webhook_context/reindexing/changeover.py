"""From one embedding model to the next, without a moment in which contexts can't be found by meaning.

```
 fill      each context: title and summary ─▶ next model ─▶ a second vector beside the first, a second index
 compare   titles as questions: does the next model find what the serving one finds?
 switch    intelligence lets the next model serve: one write, seen by all replicas within a second
 settle    each context: the second vector takes the place of the first; the old index empties and is gone
```

Each step can be repeated: what is filled is recognised by a digest of what it was made from, what is settled
by its model. Until the switch nothing of what serves is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum

from webhook_shared.errors import FailedPrecondition

from webhook_context.changes.feeds import VECTORS, Feeds, Touched
from webhook_context.domain.contexts import Context
from webhook_context.finding.documents import Model, vector_of
from webhook_context.finding.next_vectors import NextVector, NextVectors, digest
from webhook_context.finding.search import Search
from webhook_context.intelligence_client import IntelligenceClient, Models, Subject
from webhook_context.reindexing.model_comparison import Agreement, Sample, compare
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts

READ_AT_ONCE = 128
QUESTIONS = 100
ALLOWED_LOSS = 0.05
"""Of recall; a sample of QUESTIONS can't tell less."""
LEAST_COVERAGE = 0.99
NOTICED_AFTER_S = 1.5
"""After so long every replica of intelligence knows of a switch."""
ROUNDS = 5


class Phase(Enum):
    """How far it has come."""

    FILLING = 1
    COMPARED = 2
    SWITCHED = 3
    DROPPED = 4


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, for one tenant.

    Attributes:
        fill_only: Not to switch.
        force: To switch even if the next model finds less.
        dry_run: Only to count.
    """

    tenant: str
    fill_only: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class Progress:
    """How far it has come.

    Attributes:
        serving: The model when it began.
        target: The one that it goes to; the same where there is no next one.
        contexts: With a vector.
        filled: Of them with one of the target.
    """

    serving: Model
    target: Model
    phase: Phase = Phase.FILLING
    contexts: int = 0
    filled: int = 0
    agreement: Agreement | None = None


class Reindexing:
    """Carries a change of model out."""

    def __init__(
        self,
        store: RedisContexts,
        coming: NextVectors,
        intelligence: IntelligenceClient,
        feeds: Feeds,
        search: Search,
    ) -> None:
        self._store = store
        self._coming = coming
        self._intelligence = intelligence
        self._feeds = feeds
        self._search = search

    async def carry_out(self, order: Order) -> AsyncIterator[Progress]:
        """Go through all steps, and tell after each few contexts.

        Raises:
            ServiceError: Of intelligence; REINDEX_INCOMPLETE, REINDEX_WORSE. The model that serves goes on.
            REDIS_TROUBLE: To be repeated.
        """
        models = await self._intelligence.models(order.tenant)
        progress = Progress(models.serving, models.following or models.serving)
        async for _ in self._fill(order, progress, models):
            yield progress
        if order.dry_run:
            return
        if models.following is not None:
            await self._compare(order, progress)
            yield progress
            if order.fill_only:
                return
            await self._intelligence.switch(order.tenant, progress.target)
            progress.phase = Phase.SWITCHED
            yield progress
            await asyncio.sleep(NOTICED_AFTER_S)
        # What was written while it switched may be of the old model: it is looked at again.
        for _ in range(ROUNDS):
            left = 0
            async for contexts in self._contexts(order.tenant):
                left += await self._settle(order.tenant, contexts, progress.target)
            if not left:
                progress.phase = Phase.DROPPED
                yield progress
                return
            async for _ in self._fill(order, progress, await self._intelligence.models(order.tenant)):
                yield progress
        raise _incomplete(progress)

    async def _fill(self, order: Order, progress: Progress, models: Models) -> AsyncIterator[None]:
        progress.contexts = progress.filled = 0
        async for contexts in self._contexts(order.tenant):
            known = await self._coming.find(order.tenant, [one.context_id for one in contexts])
            lacking = [one for one in contexts if not _has(one, known.get(one.context_id), progress.target)]
            progress.contexts += len(contexts)
            progress.filled += len(contexts) - len(lacking)
            if lacking and not order.dry_run:
                progress.filled += await self._fill_some(order.tenant, lacking, progress.target, models)
            yield

    async def _fill_some(
        self, tenant: str, contexts: Sequence[Context], target: Model, models: Models
    ) -> int:
        subjects = [Subject(one.context_id, one.facts.word("title"), _summary(one)) for one in contexts]
        vectors = await self._intelligence.vectors(
            tenant, subjects, target, next_one=models.following is not None
        )
        made = {
            subject.context_id: NextVector(target, digest(subject.title, subject.summary), vectors[at])
            for at, subject in enumerate(subjects)
            if at in vectors
        }
        await self._tell(tenant, await self._coming.put(tenant, made))
        return len(made)

    async def _compare(self, order: Order, progress: Progress) -> None:
        if progress.contexts and progress.filled < LEAST_COVERAGE * progress.contexts and not order.force:
            raise _incomplete(progress)
        sample = Sample(QUESTIONS)
        async for contexts in self._contexts(order.tenant):
            known = await self._coming.find(order.tenant, [one.context_id for one in contexts])
            for one in contexts:
                model, vector = vector_of(one)
                coming = known.get(one.context_id)
                if model == progress.serving and coming and coming.model == progress.target:
                    sample.add(one.facts.word("title"), vector, coming.vector)
        serving, following = await self._intelligence.questions(order.tenant, sample.questions())
        progress.agreement = await asyncio.to_thread(compare, sample, serving, following)
        progress.phase = Phase.COMPARED
        lost = progress.agreement.recall_serving - progress.agreement.recall_next
        if lost > ALLOWED_LOSS and not order.force:
            raise FailedPrecondition(
                "REINDEX_WORSE",
                "the next model finds less than the one that serves",
                recall_serving=f"{progress.agreement.recall_serving:.3f}",
                recall_next=f"{progress.agreement.recall_next:.3f}",
            )

    async def _settle(self, tenant: str, contexts: Sequence[Context], target: Model) -> int:
        """Drop what is old of some contexts; how many of them are left with a vector of another model."""
        known = await self._coming.find(tenant, [one.context_id for one in contexts])
        left, settled = 0, {}
        for one in contexts:
            coming = known.get(one.context_id)
            is_of_target = vector_of(one)[0] == target
            if coming is not None and (is_of_target or coming.model != target):
                await self._coming.drop(tenant, one.context_id)
                settled[one.context_id] = one.version
            elif coming is not None and await self._coming.settle(one, coming):
                is_of_target = True
                settled[one.context_id] = one.version
            left += not is_of_target
        await self._tell(tenant, settled)
        return left

    async def _tell(self, tenant: str, versions: dict[str, int]) -> None:
        """Let all indexes read these again."""
        touched = [Touched(tenant, one, version, VECTORS) for one, version in versions.items()]
        await self._feeds.publish(touched)
        for change in touched:
            self._search.touch(change)

    async def _contexts(self, tenant: str) -> AsyncIterator[list[Context]]:
        """All that have a vector, in portions."""
        async for versions in self._store.versions(tenant):
            ids = list(versions)
            for at in range(0, len(ids), READ_AT_ONCE):
                found = await self._store.read(
                    tenant, ids[at : at + READ_AT_ONCE], View(vector=True, unpacked=True)
                )
                yield [one for one in found if isinstance(one, Context) and vector_of(one)[0] is not None]


def _summary(context: Context) -> str:
    return context.enrichment.summary if context.enrichment else ""


def _has(context: Context, coming: NextVector | None, target: Model) -> bool:
    """Whether a context has a vector of the target, made from what it says now."""
    if vector_of(context)[0] == target:
        return True
    of = digest(context.facts.word("title"), _summary(context))
    return coming is not None and coming.model == target and coming.of == of


def _incomplete(progress: Progress) -> FailedPrecondition:
    return FailedPrecondition(
        "REINDEX_INCOMPLETE",
        f"{progress.filled} of {progress.contexts} contexts have a vector of the next model; run it again",
    )
