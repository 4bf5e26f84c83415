"""`webhook.intelligence.v1.IntelligenceService`: messages in, messages out, nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1 import intelligence_service_pb2_grpc as rpc
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.errors import Internal, InvalidArgument, ServiceError, item_status
from webhook_shared.identity import caller

from webhook_intelligence.analysis import Analysis, Analyst
from webhook_intelligence.embeddings import Embeddings, Outcome, unusable
from webhook_intelligence.provider import EmbeddingModel
from webhook_intelligence.redaction import redact
from webhook_intelligence.subject import Happening, Subject
from webhook_intelligence.summaries import DEFAULT_WORDS, Summarizer

MOST_TEXTS = 2048
MOST_SUBJECTS = 256
MOST_WORDS = 1000
# For callers that set no deadline, and for those that set a very long one.
LONGEST_CALL_S = 120.0
# Kept back from the caller's deadline, so that our answer, not its clock, tells what went wrong.
ANSWER_MARGIN_S = 0.1

Context = grpc.aio.ServicerContext[Any, Any]


class IntelligenceServicer(rpc.IntelligenceServiceServicer):
    """The RPCs; see the contract for what each of them promises."""

    def __init__(self, embeddings: Embeddings, summarizer: Summarizer, analyst: Analyst) -> None:
        self._embeddings = embeddings
        self._summarizer = summarizer
        self._analyst = analyst

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """One unit vector per text."""
        _check_count("texts", len(request.texts), MOST_TEXTS)
        tenant = caller().tenant(request.tenant)
        outcomes = await self._embeddings.embed(tenant, list(request.texts), timeout_s=_time_left_s(context))
        return pb.EmbedResponse(
            results=[_embed_result(outcome) for outcome in outcomes], model=_model(self._embeddings.model)
        )

    async def Summarize(self, request: pb.SummarizeRequest, context: Context) -> pb.SummarizeResponse:
        """A short text for longer ones."""
        _check_count("texts", len(request.texts), MOST_TEXTS)
        caller().tenant(request.tenant)
        if not 0 <= request.max_words <= MOST_WORDS:
            raise InvalidArgument(
                f"a summary has at most {MOST_WORDS} words",
                fields={"max_words": f"must be 0 to {MOST_WORDS}"},
            )
        texts = [text for text in request.texts if text.strip()]
        if not texts:
            raise InvalidArgument("there is no text", reason="TEXT_EMPTY", fields={"texts": "are all empty"})
        for text in texts:
            if error := unusable(text):
                raise error
        summary = await self._summarizer.summarize(
            [redact(text) for text in texts],
            max_words=request.max_words or DEFAULT_WORDS,
            deadline=asyncio.get_running_loop().time() + _time_left_s(context),
        )
        return pb.SummarizeResponse(summary=summary.text, model=summary.model)

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> pb.AnalyzeResponse:
        """All that is to be known of each subject."""
        _check_count("subjects", len(request.subjects), MOST_SUBJECTS)
        outcomes: list[Analysis | ServiceError] = [Internal()] * len(request.subjects)
        by_tenant: dict[str, list[int]] = {}
        for i, subject in enumerate(request.subjects):
            try:
                by_tenant.setdefault(caller().tenant(subject.tenant), []).append(i)
            except ServiceError as error:
                outcomes[i] = error
        timeout_s = _time_left_s(context)
        analyses = await asyncio.gather(
            *(
                self._analyst.analyze(
                    tenant, [_subject(request.subjects[i]) for i in indexes], timeout_s=timeout_s
                )
                for tenant, indexes in by_tenant.items()
            )
        )
        for indexes, found in zip(by_tenant.values(), analyses, strict=True):
            for i, outcome in zip(indexes, found, strict=True):
                outcomes[i] = outcome
        return pb.AnalyzeResponse(
            analyses=[_analysis(outcome) for outcome in outcomes], model=_model(self._embeddings.model)
        )


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidArgument(
            f"{count} {field}, but 1 to {most} are taken", fields={field: f"must be 1 to {most}"}
        )


def _time_left_s(context: Context) -> float:
    left: float | None = context.time_remaining()
    return LONGEST_CALL_S if left is None else max(0.0, min(LONGEST_CALL_S, left - ANSWER_MARGIN_S))


def _subject(message: pb.Subject) -> Subject:
    return Subject(
        context_id=message.context_id,
        title=message.title,
        summary=message.summary,
        happenings=tuple(
            Happening(happening.event_id, happening.kind, happening.action, happening.actor, happening.text)
            for happening in message.happenings
        ),
        event_count=message.event_count,
    )


def _model(model: EmbeddingModel) -> pb.EmbeddingModel:
    return pb.EmbeddingModel(provider=model.provider, name=model.name, dimension=model.dimension)


def _embed_result(outcome: Outcome) -> pb.EmbedResult:
    if isinstance(outcome, ServiceError):
        return pb.EmbedResult(status=_status(outcome))
    return pb.EmbedResult(vector=outcome.vector.tolist(), truncated=outcome.truncated, status=_status(None))


def _analysis(outcome: Analysis | ServiceError) -> pb.Analysis:
    if isinstance(outcome, ServiceError):
        return pb.Analysis(status=_status(outcome))
    return pb.Analysis(
        vector=outcome.vector.tolist(),
        summary=outcome.summary.text,
        summary_model=outcome.summary.model,
        importance=outcome.importance.value,
        importance_factors=[
            pb.ImportanceFactor(name=factor.name, contribution=factor.contribution)
            for factor in outcome.importance.factors
        ],
        entities=[pb.Entity(kind=entity.kind, value=entity.value) for entity in outcome.entities],
        status=_status(None),
    )


def _status(error: ServiceError | None) -> ItemStatus:
    return ItemStatus(**item_status(error))
