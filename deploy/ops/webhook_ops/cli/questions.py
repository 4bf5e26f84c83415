"""Questions in plain words, as vectors of the index's model."""

from __future__ import annotations

import sys

from webhook.context.v1 import context_pb2, context_service_pb2
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc

from webhook_ops.cli.door import Door, Refused


async def embed(
    door: Door,
    request: context_service_pb2.SearchContextsRequest | context_service_pb2.AssembleWindowRequest,
    query: str,
    tenant: str,
) -> None:
    """Add the query's vector to a request; says so on standard error where intelligence is away."""
    try:
        async with door.open("intelligence") as channel:
            embedded = await intelligence_service_pb2_grpc.IntelligenceServiceStub(channel).Embed(
                intelligence_service_pb2.EmbedRequest(texts=[query], tenant=tenant)
            )
    except Refused as refused:
        sys.stderr.write(f"searching by words alone: intelligence: {refused.error.message}\n")
        return
    request.query_vector.extend(embedded.results[0].vector)
    model = embedded.model
    request.query_model.CopyFrom(
        context_pb2.EmbeddingModel(provider=model.provider, name=model.name, dimension=model.dimension)
    )
