"""`webhook.intelligence.v1.IntelligenceService`: messages in, messages out, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

import grpc
from webhook.erasure.v1.erasure_pb2 import Place
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1 import intelligence_service_pb2_grpc as rpc
from webhook_shared.errors import FailedPrecondition, Internal, InvalidArgument, ServiceError, Unavailable
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.rpc.identity import caller

from webhook_intelligence import importance, messages
from webhook_intelligence.analysis import Analysis, Analyst, is_empty, named_in
from webhook_intelligence.costs.ledger import MOST_DAYS, Ledger, Payer
from webhook_intelligence.embeddings.batches import Lane
from webhook_intelligence.embeddings.models_in_use import ModelsInUse
from webhook_intelligence.embeddings.single_flight import Embeddings, unusable
from webhook_intelligence.estimates import Estimator
from webhook_intelligence.forgetting import Forgetting
from webhook_intelligence.portions import as_ready
from webhook_intelligence.prediction.prewarming import Prewarming
from webhook_intelligence.summaries.extractive import DEFAULT_WORDS, Summarizer
from webhook_intelligence.texts.redaction import redact

MOST_TEXTS = 2048
MOST_SUBJECTS = 256
MOST_STREAMED_TEXTS = 65_536
MOST_STREAMED_SUBJECTS = 4096
# So much stands in one answer of a stream: less than 2 MB of vectors.
PORTION_TEXTS = 128
PORTION_SUBJECTS = 64
MOST_WORDS = 1000
MOST_OBSERVATIONS = 1024
MOST_SOURCES = 64
MOST_PREDICTIONS = 100
# For callers that set no deadline, and for those that set a very long one.
LONGEST_CALL_S = 120.0
# Kept back from the caller's deadline, so that our answer, not its clock, tells what went wrong.
ANSWER_MARGIN_S = 0.1

Context = grpc.aio.ServicerContext[Any, Any]


class IntelligenceServicer(rpc.IntelligenceServiceServicer):
    """The RPCs; see the contract for what each of them promises."""

    def __init__(
        self,
        models: ModelsInUse,
        embeddings: Embeddings,
        *,
        summarizer: Summarizer,
        analyst: Analyst,
        ledger: Ledger,
        prewarming: Prewarming | None,
        acts: bool,
        forgetting: Forgetting,
    ) -> None:
        """Answer with what there is.

        Args:
            models: For vectors: the one that serves a tenant, and the next one.
            embeddings: Of the model that is set, for estimates.
            summarizer: For summaries.
            analyst: For both, and the rest.
            ledger: Where calls are paid.
            prewarming: None where it is off.
            acts: Whether predictions are to be acted on, or only measured.
            forgetting: Drops what is kept.
        """
        self._models = models
        self._summarizer = summarizer
        self._analyst = analyst
        self._ledger = ledger
        self._prewarming = prewarming
        self._acts = acts
        self._forgetting = forgetting
        self._estimator = Estimator(embeddings, summarizer, analyst, ledger)

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """One unit vector per text."""
        _check_count("texts", len(request.texts), MOST_TEXTS)
        payer = Payer(caller().tenant(request.tenant), "embed")
        lane = messages.lane(request.priority, Lane.QUERY)
        embeddings = await self._chosen(payer.tenant, request.choice)
        outcomes = await embeddings.embed(
            payer, list(request.texts), timeout_s=_time_left_s(context), lane=lane
        )
        return pb.EmbedResponse(
            results=map(messages.embed_result, outcomes), model=messages.model(embeddings.model)
        )

    async def StreamEmbed(
        self, request: pb.StreamEmbedRequest, context: Context
    ) -> AsyncIterator[pb.StreamEmbedResponse]:
        """The same, in portions as they are ready."""
        _check_count("texts", len(request.texts), MOST_STREAMED_TEXTS)
        payer = Payer(caller().tenant(request.tenant), "embed")
        lane = messages.lane(request.priority, Lane.EVENT)
        timeout_s = _time_left_s(context)
        texts = list(request.texts)
        embeddings = await self._chosen(payer.tenant, request.choice)

        async def portion(indexes: range) -> pb.StreamEmbedResponse:
            part = texts[indexes.start : indexes.stop]
            outcomes = await embeddings.embed(payer, part, timeout_s=timeout_s, lane=lane)
            return pb.StreamEmbedResponse(
                indexes=indexes,
                results=map(messages.embed_result, outcomes),
                model=messages.model(embeddings.model),
            )

        async with aclosing(as_ready(portion, len(texts), PORTION_TEXTS)) as answers:
            async for answer in answers:
                yield answer

    async def StreamAnalyze(
        self, request: pb.StreamAnalyzeRequest, context: Context
    ) -> AsyncIterator[pb.StreamAnalyzeResponse]:
        """All that is to be known of each subject, in portions as they are ready."""
        _check_count("subjects", len(request.subjects), MOST_STREAMED_SUBJECTS)
        lane = messages.lane(request.priority, Lane.EVENT)
        timeout_s = _time_left_s(context)
        subjects = list(request.subjects)

        async def portion(indexes: range) -> pb.StreamAnalyzeResponse:
            part = subjects[indexes.start : indexes.stop]
            outcomes = await self._analyses(
                part, timeout_s, lane, may_defer=request.may_defer, choice=request.choice
            )
            return pb.StreamAnalyzeResponse(
                indexes=indexes, analyses=map(messages.analysis, outcomes), model=_model_of(outcomes)
            )

        async with aclosing(as_ready(portion, len(subjects), PORTION_SUBJECTS)) as answers:
            async for answer in answers:
                yield answer

    async def Summarize(self, request: pb.SummarizeRequest, context: Context) -> pb.SummarizeResponse:
        """A short text for longer ones."""
        payer = Payer(caller().tenant(request.tenant), "summarize")
        summary = await self._summarizer.summarize(
            _texts_to_summarize(request),
            payer=payer,
            max_words=request.max_words or DEFAULT_WORDS,
            deadline=asyncio.get_running_loop().time() + _time_left_s(context),
            style=messages.style(request.style),
        )
        return messages.summary(summary)

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> pb.AnalyzeResponse:
        """All that is to be known of each subject."""
        _check_count("subjects", len(request.subjects), MOST_SUBJECTS)
        outcomes = await self._analyses(
            list(request.subjects),
            _time_left_s(context),
            messages.lane(request.priority, Lane.EVENT),
            may_defer=request.may_defer,
        )
        return pb.AnalyzeResponse(analyses=map(messages.analysis, outcomes), model=_model_of(outcomes))

    async def _analyses(
        self,
        subjects: list[pb.Subject],
        timeout_s: float,
        lane: Lane,
        *,
        may_defer: bool,
        choice: pb.EmbeddingChoice.ValueType = pb.EMBEDDING_CHOICE_SERVING,
    ) -> list[Analysis | ServiceError]:
        """One outcome per subject, in order, whosever they are."""
        outcomes: list[Analysis | ServiceError] = [Internal()] * len(subjects)
        by_tenant: dict[str, list[int]] = {}
        for i, subject in enumerate(subjects):
            try:
                by_tenant.setdefault(caller().tenant(subject.tenant), []).append(i)
            except ServiceError as error:
                outcomes[i] = error
        models = {tenant: await self._chosen(tenant, choice) for tenant in by_tenant}
        analyses = await asyncio.gather(
            *(
                self._analyst.analyze(
                    Payer(tenant, "analyze"),
                    [messages.subject(subjects[i]) for i in indexes],
                    timeout_s=timeout_s,
                    lane=lane,
                    may_defer=may_defer,
                    embeddings=models[tenant],
                )
                for tenant, indexes in by_tenant.items()
            )
        )
        for (tenant, indexes), found in zip(by_tenant.items(), analyses, strict=True):
            for i, outcome in zip(indexes, found, strict=True):
                outcomes[i] = outcome
            self._note(tenant, (subjects[i] for i in indexes if isinstance(outcomes[i], Analysis)))
        return outcomes

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        """What an importance is made of."""
        if not request.HasField("subject"):
            return messages.explanation([])
        caller().tenant(request.subject.tenant)
        subject = messages.subject(request.subject).readable()
        if is_empty(subject):
            raise InvalidArgument("the subject has no title, summary or happenings", reason="SUBJECT_EMPTY")
        return messages.explanation(importance.features(subject, named_in(subject)))

    async def Observe(self, request: pb.ObserveRequest, context: Context) -> pb.ObserveResponse:
        """Contexts were touched."""
        _check_count("observations", len(request.observations), MOST_OBSERVATIONS)
        tenant = caller().tenant(request.tenant)
        prewarming = self._running_prewarming()
        statuses, good = [], []
        now_s = time.time()
        for message in request.observations:
            try:
                good.append(messages.observation(message, now_s))
            except ServiceError as error:
                statuses.append(messages.status(error))
            else:
                statuses.append(messages.status(None))
        prewarming.note(tenant, good)
        return pb.ObserveResponse(statuses=statuses)

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Contexts that are likely to be needed next."""
        tenant = caller().tenant(request.tenant)
        if len(request.context_ids) > MOST_SOURCES:
            raise InvalidArgument(
                "too many contexts", fields={"context_ids": f"at most {MOST_SOURCES} are taken"}
            )
        if not 0 <= request.max_predictions <= MOST_PREDICTIONS:
            raise InvalidArgument(
                "too many predictions", fields={"max_predictions": f"must be 0 to {MOST_PREDICTIONS}"}
            )
        prewarming = self._running_prewarming()
        predictor = await prewarming.predictor(tenant)
        found = predictor.predict(
            list(request.context_ids),
            request.max_predictions or prewarming.policy.max_predictions,
            include_off=request.include_off,
        )
        return messages.predictions(found, predictor, acts=self._acts)

    async def Estimate(self, request: pb.EstimateRequest, context: Context) -> pb.EstimateResponse:
        """What a call would cost."""
        match request.WhichOneof("call"):
            case "embed":
                _check_count("texts", len(request.embed.texts), MOST_TEXTS)
                tenant = caller().tenant(request.embed.tenant)
                return await self._estimator.embed(tenant, request.embed.texts)
            case "summarize":
                tenant = caller().tenant(request.summarize.tenant)
                texts = _texts_to_summarize(request.summarize)
                words = request.summarize.max_words or DEFAULT_WORDS
                return await self._estimator.summarize(tenant, texts, words)
            case "analyze":
                _check_count("subjects", len(request.analyze.subjects), MOST_SUBJECTS)
                tenants = {caller().tenant(subject.tenant) for subject in request.analyze.subjects}
                if len(tenants) > 1:
                    raise InvalidArgument(
                        "an estimate is for one tenant", fields={"analyze.subjects": "have several tenants"}
                    )
                subjects = [messages.subject(subject) for subject in request.analyze.subjects]
                return await self._estimator.analyze(tenants.pop(), subjects)
            case _:
                raise InvalidArgument("no call is given", fields={"call": "is needed"})

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:
        """Drop what was made of a tenant's texts."""
        tenant = request.wanted.tenant
        if not tenant:
            raise InvalidArgument("tenant is needed", fields={"wanted.tenant": "is needed"})
        try:
            forgotten = await self._forgetting.carry_out(tenant, dry_run=request.dry_run)
        except REDIS_TROUBLE:
            raise Unavailable("STORE_UNREACHABLE", "Redis does not answer; try again") from None
        return pb.ForgetResponse(
            places=[
                Place(name=one.place, found_count=one.found, erased_count=one.erased) for one in forgotten
            ]
        )

    async def GetSpending(self, request: pb.GetSpendingRequest, context: Context) -> pb.GetSpendingResponse:
        """What a tenant has spent."""
        tenant = caller().tenant(request.tenant)
        if not 0 <= request.days <= MOST_DAYS:
            raise InvalidArgument("too many days", fields={"days": f"must be 0 to {MOST_DAYS}"})
        entries = await self._ledger.entries(tenant, request.days or 1)
        spent = await self._ledger.spent(tenant)
        return messages.spending(entries, self._ledger.budgets.of(tenant), spent)

    async def GetEmbeddingModels(
        self, request: pb.GetEmbeddingModelsRequest, context: Context
    ) -> pb.GetEmbeddingModelsResponse:
        """Which model serves, and which is to come."""
        tenant = caller().tenant(request.tenant)
        serving, following = await self._models.serving(tenant), await self._models.following(tenant)
        return pb.GetEmbeddingModelsResponse(
            serving=messages.model(serving.model), next=messages.model(following.model) if following else None
        )

    async def SwitchEmbeddingModel(
        self, request: pb.SwitchEmbeddingModelRequest, context: Context
    ) -> pb.SwitchEmbeddingModelResponse:
        """Let another model serve."""
        tenant, wanted = caller().tenant(request.tenant), request.model
        serving = await self._models.switch(tenant, wanted.provider, wanted.name, wanted.dimension)
        return pb.SwitchEmbeddingModelResponse(serving=messages.model(serving.model))

    async def _chosen(self, tenant: str, choice: pb.EmbeddingChoice.ValueType) -> Embeddings:
        if choice == pb.EMBEDDING_CHOICE_NEXT:
            return await self._models.next(tenant)
        return await self._models.serving(tenant)

    def _note(self, tenant: str, analysed: Iterable[pb.Subject]) -> None:
        """An analysed subject had events: that is a use of it."""
        if self._prewarming is not None:
            now_s = time.time()
            seen = (messages.observed(subject, now_s) for subject in analysed)
            self._prewarming.note(tenant, (one for one in seen if one is not None))

    def _running_prewarming(self) -> Prewarming:
        if self._prewarming is None:
            raise FailedPrecondition(
                "PREWARMING_OFF", "nothing is learned or predicted: webhook.ai.prewarming.mode is off"
            )
        return self._prewarming


def _model_of(outcomes: Iterable[Analysis | ServiceError]) -> pb.EmbeddingModel | None:
    """Of the first vector; where there are others, each analysis tells its own."""
    first = next((one for one in outcomes if isinstance(one, Analysis)), None)
    return messages.model(first.model) if first else None


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidArgument(
            f"{count} {field}, but 1 to {most} are taken", fields={field: f"must be 1 to {most}"}
        )


def _texts_to_summarize(request: pb.SummarizeRequest) -> list[str]:
    """The texts that say something, without secrets."""
    _check_count("texts", len(request.texts), MOST_TEXTS)
    if not 0 <= request.max_words <= MOST_WORDS:
        raise InvalidArgument(
            f"a summary has at most {MOST_WORDS} words", fields={"max_words": f"must be 0 to {MOST_WORDS}"}
        )
    texts = [text for text in request.texts if text.strip()]
    if not texts:
        raise InvalidArgument("there is no text", reason="TEXT_EMPTY", fields={"texts": "are all empty"})
    for text in texts:
        if error := unusable(text):
            raise error
    return [redact(text) for text in texts]


def _time_left_s(context: Context) -> float:
    left: float | None = context.time_remaining()
    return LONGEST_CALL_S if left is None else max(0.0, min(LONGEST_CALL_S, left - ANSWER_MARGIN_S))
