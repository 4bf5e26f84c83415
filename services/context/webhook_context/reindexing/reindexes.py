"""A change of the embedding model as the contract has it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook.context.v1.context_pb2 import EmbeddingModel

from webhook_context.finding.documents import Model
from webhook_context.reindexing.changeover import Order, Phase, Progress, Reindexing
from webhook_context.reindexing.model_comparison import Agreement

_PHASES = {
    Phase.FILLING: pb.REINDEX_PHASE_FILLING,
    Phase.COMPARED: pb.REINDEX_PHASE_COMPARED,
    Phase.SWITCHED: pb.REINDEX_PHASE_SWITCHED,
    Phase.DROPPED: pb.REINDEX_PHASE_DROPPED,
}


async def reindexed(
    reindexing: Reindexing, tenant: str, request: pb.ReindexRequest
) -> AsyncIterator[pb.ReindexResponse]:
    """Carry it out, and tell how far it has come; errors as of `Reindexing.carry_out`."""
    order = Order(tenant, fill_only=request.fill_only, force=request.force, dry_run=request.dry_run)
    told = pb.ReindexResponse()
    async for progress in reindexing.carry_out(order):
        told = _told(progress)
        yield told
    last = pb.ReindexResponse()
    last.CopyFrom(told)
    last.done = True
    yield last


def _told(progress: Progress) -> pb.ReindexResponse:
    return pb.ReindexResponse(
        phase=_PHASES[progress.phase],
        serving=_model(progress.serving),
        next=_model(progress.target),
        context_count=progress.contexts,
        filled_count=progress.filled,
        comparison=_comparison(progress.agreement) if progress.agreement else None,
    )


def _comparison(agreement: Agreement) -> pb.ReindexComparison:
    return pb.ReindexComparison(
        question_count=agreement.questions,
        recall_serving=agreement.recall_serving,
        recall_next=agreement.recall_next,
        overlap=agreement.overlap,
    )


def _model(model: Model) -> EmbeddingModel:
    return EmbeddingModel(provider=model.provider, name=model.name, dimension=model.dimension)
