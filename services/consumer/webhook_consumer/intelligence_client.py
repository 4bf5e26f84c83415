"""Calls to intelligence. The only file that knows its contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc
from webhook.intelligence.v1 import intelligence_service_pb2 as messages
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_shared.errors import ServiceError, from_item_status, from_rpc_error

from webhook_consumer.insight import Insight, Known, Model

MOST_SUBJECTS = 256
MOST_BYTES = 16 * 2**20
# What a model reads of one event is less; the rest would only travel.
LONGEST_TEXT_CHARS = 4096
MOST_LINKS = 64


class IntelligenceClient:
    """Intelligence, as this service uses it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = IntelligenceServiceStub(channel)

    async def analyze(self, contexts: Sequence[Known]) -> list[Insight | ServiceError]:
        """Understand contexts. One result per context, in order.

        Raises:
            ServiceError: The call as a whole failed.
        """
        results: list[Insight | ServiceError] = []
        for subjects in _portions([_subject(known) for known in contexts]):
            try:
                request = messages.AnalyzeRequest(subjects=subjects, may_defer=True)
                response = await self._stub.Analyze(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None
            results += [_result(analysis, response.model) for analysis in response.analyses]
        return results


def _subject(known: Known) -> messages.Subject:
    subject = messages.Subject(
        tenant=known.tenant,
        context_id=known.context_id,
        title=known.title,
        summary=known.summary,
        event_count=known.event_count,
        linked_context_ids=known.links[:MOST_LINKS],
    )
    for happening in known.news:
        message = subject.happenings.add(
            event_id=happening.event_id,
            kind=known.kind,
            action=happening.action,
            actor=happening.actor,
            text=happening.text[:LONGEST_TEXT_CHARS],
        )
        if happening.occurred_ns is not None:
            message.occurred_time.FromNanoseconds(happening.occurred_ns)
    return subject


def _portions(subjects: Sequence[messages.Subject]) -> Iterator[list[messages.Subject]]:
    portion: list[messages.Subject] = []
    size = 0
    for subject in subjects:
        added = subject.ByteSize()
        if portion and (len(portion) == MOST_SUBJECTS or size + added > MOST_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(subject)
        size += added
    if portion:
        yield portion


def _result(analysis: messages.Analysis, model: messages.EmbeddingModel) -> Insight | ServiceError:
    status = analysis.status
    model = analysis.model if analysis.HasField("model") else model
    return from_item_status(status.code, status.reason, status.message) or Insight(
        vector=tuple(analysis.vector),
        model=Model(model.provider, model.name, model.dimension),
        summary=analysis.summary,
        summary_model=analysis.summary_model,
        importance=analysis.importance,
        factors=tuple((factor.name, factor.contribution) for factor in analysis.importance_factors),
        entities=tuple((entity.kind, entity.value) for entity in analysis.entities),
        deferred_count=analysis.deferred_count,
    )
