"""Calls to the consumer. The only file here that knows its contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from webhook.consumer.v1 import forgetting_service_pb2 as pb
from webhook.consumer.v1.forgetting_service_pb2_grpc import ForgettingServiceStub
from webhook_shared.errors import from_rpc_error

from webhook_context.erasing.elsewhere import Question, counts_of
from webhook_context.erasing.tally import Count

LONGEST_S = 24 * 3600.0
"""A large archive takes its time."""


class ConsumerClient:
    """The consumer, as far as it keeps events."""

    name = "consumer"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ForgettingServiceStub(channel)

    async def forget(self, question: Question) -> AsyncIterator[list[Count]]:
        """See `Elsewhere`."""
        request = pb.ForgetRequest(wanted=question.message(), dry_run=question.dry_run)
        try:
            async for told in self._stub.Forget(request, timeout=LONGEST_S):
                yield counts_of(told.places)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
