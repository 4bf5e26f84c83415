"""Calls to the gateway. The only file here that knows its contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from webhook.ingest.v1 import ingest_admin_service_pb2 as pb
from webhook.ingest.v1.ingest_admin_service_pb2_grpc import IngestAdminServiceStub
from webhook_shared.errors import from_rpc_error

from webhook_context.erasing.elsewhere import Question, counts_of
from webhook_context.erasing.tally import Count

LONGEST_S = 600.0


class GatewayClient:
    """One of the gateways, as far as it keeps events."""

    name = "gateway"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = IngestAdminServiceStub(channel)

    async def forget(self, question: Question) -> AsyncIterator[list[Count]]:
        """See `Elsewhere`."""
        request = pb.ForgetRequest(wanted=question.message(), dry_run=question.dry_run)
        try:
            told = await self._stub.Forget(request, timeout=LONGEST_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        yield counts_of(told.places)
