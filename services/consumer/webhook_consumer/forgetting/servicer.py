"""ForgettingService: messages on the one side, what is to be forgotten on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from webhook.consumer.v1 import forgetting_service_pb2 as messages
from webhook.consumer.v1.forgetting_service_pb2_grpc import (
    ForgettingServiceServicer,
    add_ForgettingServiceServicer_to_server,
)
from webhook.erasure.v1 import erasure_pb2
from webhook_shared.errors import InvalidArgument, Unavailable
from webhook_shared.mentions import Name
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.rpc.identity import Role
from webhook_shared.rpc.server import Service
from webhook_shared.telemetry import log

from webhook_consumer.entry import Outage
from webhook_consumer.forgetting.erasure import Forgetting, Sum
from webhook_consumer.forgetting.match import Wanted

NAME = "webhook.consumer.v1.ForgettingService"

Context = grpc.aio.ServicerContext[Any, Any]


class ForgettingServicer(ForgettingServiceServicer):
    """Serves the context store."""

    def __init__(self, forgetting: Forgetting) -> None:
        self._forgetting = forgetting

    def service(self) -> Service:
        """As a server takes it."""
        return Service(
            NAME, lambda server: add_ForgettingServiceServicer_to_server(self, server), Role.INTERNAL
        )

    async def Forget(
        self, request: messages.ForgetRequest, context: Context
    ) -> AsyncIterator[messages.ForgetResponse]:
        """Told as it goes. Errors: INVALID_ARGUMENT/FIELD_INVALID, UNAVAILABLE/STORE_UNREACHABLE."""
        wanted = _wanted(request.wanted)
        told: dict[str, erasure_pb2.Place] = {}
        try:
            async for sums in self._forgetting.carry_out(wanted, dry_run=request.dry_run):
                now = {name: _place(name, each) for name, each in sums.by_place.items()}
                changed = [place for name, place in now.items() if told.get(name) != place]
                told = now
                if changed:
                    yield messages.ForgetResponse(places=changed)
        except Outage as error:
            raise Unavailable("STORE_UNREACHABLE", str(error)) from error
        except REDIS_TROUBLE as error:
            log.warning("forgetting.store_unreachable", error=type(error).__name__)
            raise Unavailable("STORE_UNREACHABLE", "Redis does not answer; try again") from error
        yield messages.ForgetResponse(done=True)


def _wanted(asked: erasure_pb2.Wanted) -> Wanted:
    if not asked.tenant:
        raise InvalidArgument("tenant is needed", fields={"wanted.tenant": "is needed"})
    if asked.context_id and asked.subject:
        raise InvalidArgument("one of both", fields={"wanted.subject": "or context_id, not both"})
    subject = Name.of(asked.subject) if asked.subject else None
    if asked.subject and subject is None:
        raise InvalidArgument("no name", fields={"wanted.subject": "has no word in it"})
    return Wanted(
        tenant=asked.tenant,
        context_id=asked.context_id,
        subject=subject,
        event_ids=frozenset(asked.event_ids),
        since_ms=asked.since_ms,
    )


def _place(name: str, held: Sum) -> erasure_pb2.Place:
    return erasure_pb2.Place(
        name=name,
        found_count=held.found,
        erased_count=held.erased,
        left_count=held.left,
        reason=held.reason,
    )
