"""Calls to intelligence: what was used and what will be, and vectors by one model or the next.

The only file here that knows its contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_shared.errors import Aborted, from_item_status, from_rpc_error

from webhook_context.erasing.elsewhere import Question, counts_of
from webhook_context.erasing.tally import Count
from webhook_context.finding.documents import Model
from webhook_context.uses import Read, Used

Vector = NDArray[np.float32]

MOST_OBSERVATIONS = 1024
MOST_LINKS = 64
LONGEST_ID_CHARS = 512
FILL_DEADLINE_S = 300.0
FORGET_DEADLINE_S = 600.0
_ITEM_FAULTS = frozenset({"SUBJECT_EMPTY", "TEXT_EMPTY", "TEXT_TOO_LONG"})


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A context that is likely to be needed next."""

    context_id: str
    confidence: float
    rule: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is foreseen by rules that pay. `acts`: whether to act on it, not only to measure."""

    foreseen: Sequence[Foreseen]
    acts: bool


@dataclass(frozen=True, slots=True)
class Models:
    """The one that serves a tenant, and the next one where there is one."""

    serving: Model
    following: Model | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What the vector of a context is made from."""

    context_id: str
    title: str
    summary: str


class IntelligenceClient:
    """Intelligence, as this service uses it. Every method raises ServiceError where it refuses or is away."""

    name = "intelligence"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = IntelligenceServiceStub(channel)

    async def observe(self, tenant: str, used: Used) -> None:
        """Report what was read and what was deleted.

        Raises:
            ServiceError: UNAVAILABLE, FAILED_PRECONDITION/PREWARMING_OFF...; what was reported is lost.
        """
        observations = [_access(read) for read in used.reads if len(read.context_id) <= LONGEST_ID_CHARS]
        observations += [
            pb.Observation(kind=pb.OBSERVATION_KIND_GONE, context_id=one)
            for one in used.gone
            if len(one) <= LONGEST_ID_CHARS
        ]
        try:
            for at in range(0, len(observations), MOST_OBSERVATIONS):
                part = observations[at : at + MOST_OBSERVATIONS]
                await self._stub.Observe(pb.ObserveRequest(tenant=tenant, observations=part))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def predict(self, tenant: str, in_use: Iterable[str]) -> Outlook:
        """What is likely to follow what is in use, likeliest first.

        Raises:
            ServiceError: As of `observe`.
        """
        try:
            found = await self._stub.Predict(pb.PredictRequest(tenant=tenant, context_ids=in_use))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return Outlook(
            [Foreseen(one.context_id, one.confidence, one.rule) for one in found.predictions if one.on],
            acts=found.mode == pb.PREDICTION_MODE_ACTIVE,
        )

    async def forget(self, question: Question) -> AsyncIterator[list[Count]]:
        """See `Elsewhere`."""
        request = pb.ForgetRequest(wanted=question.message(), dry_run=question.dry_run)
        try:
            told = await self._stub.Forget(request, timeout=FORGET_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        yield counts_of(told.places)

    async def models(self, tenant: str) -> Models:
        """The models of a tenant."""
        try:
            found = await self._stub.GetEmbeddingModels(pb.GetEmbeddingModelsRequest(tenant=tenant))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return Models(_model(found.serving), _model(found.next) if found.HasField("next") else None)

    async def switch(self, tenant: str, model: Model) -> None:
        """Let a model serve."""
        request = pb.SwitchEmbeddingModelRequest(
            tenant=tenant,
            model=pb.EmbeddingModel(provider=model.provider, name=model.name, dimension=model.dimension),
        )
        try:
            await self._stub.SwitchEmbeddingModel(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def vectors(
        self, tenant: str, subjects: Sequence[Subject], model: Model, *, next_one: bool
    ) -> dict[int, Vector]:
        """Vectors by the place of their subject, behind everything that somebody waits for.

        Args:
            tenant: Whose.
            subjects: At most 4,096. Those that have nothing to read get no vector.
            model: Whose vectors are expected.
            next_one: Whether that is the next model.

        Raises:
            Aborted: MODEL_CHANGED: others came; somebody else has switched.
        """
        request = pb.StreamAnalyzeRequest(
            subjects=[
                pb.Subject(tenant=tenant, context_id=one.context_id, title=one.title, summary=one.summary)
                for one in subjects
            ],
            priority=pb.PRIORITY_BACKFILL,
            choice=pb.EMBEDDING_CHOICE_NEXT if next_one else pb.EMBEDDING_CHOICE_SERVING,
        )
        found: dict[int, Vector] = {}
        try:
            async for part in self._stub.StreamAnalyze(request, timeout=FILL_DEADLINE_S):
                for at, analysis in zip(part.indexes, part.analyses, strict=True):
                    status = analysis.status
                    error = from_item_status(status.code, status.reason, status.message)
                    if error is None and _model(analysis.model) != model:
                        raise Aborted("MODEL_CHANGED", "another model answers: run it again")
                    if error is None:
                        found[at] = np.asarray(analysis.vector, np.float32)
                    elif error.reason not in _ITEM_FAULTS:
                        raise error
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return found

    async def questions(self, tenant: str, texts: Sequence[str]) -> tuple[list[Vector], list[Vector]]:
        """Vectors of questions, by the model that serves and by the next one."""
        if not texts:
            return [], []
        return (
            await self._asked(tenant, texts, pb.EMBEDDING_CHOICE_SERVING),
            await self._asked(tenant, texts, pb.EMBEDDING_CHOICE_NEXT),
        )

    async def _asked(
        self, tenant: str, texts: Sequence[str], choice: pb.EmbeddingChoice.ValueType
    ) -> list[Vector]:
        request = pb.EmbedRequest(tenant=tenant, texts=texts, choice=choice, priority=pb.PRIORITY_BACKFILL)
        try:
            answer = await self._stub.Embed(request, timeout=FILL_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        for result in answer.results:
            failed = from_item_status(result.status.code, result.status.reason, result.status.message)
            if failed is not None:
                raise failed
        return [np.asarray(result.vector, np.float32) for result in answer.results]


def _access(read: Read) -> pb.Observation:
    latest = sorted(read.links, key=lambda link: read.links[link], reverse=True)
    message = pb.Observation(
        kind=pb.OBSERVATION_KIND_ACCESS,
        context_id=read.context_id,
        actor=read.actor,
        linked_context_ids=[
            link.context_id for link in latest if 1 <= len(link.context_id) <= LONGEST_ID_CHARS
        ][:MOST_LINKS],
    )
    message.time.FromNanoseconds(int(read.at_s * 1e9))
    return message


def _model(message: pb.EmbeddingModel) -> Model:
    return Model(message.provider, message.name, message.dimension)
