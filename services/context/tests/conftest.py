"""A context store on a real socket over a real server."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from webhook.context.v1 import context_admin_service_pb2, context_pb2, context_service_pb2
from webhook.context.v1.context_admin_service_pb2_grpc import ContextAdminServiceStub
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_context.erasing.forgetting import USUAL_SETTLING, Settling
from webhook_context.settings import ContextSettings, ContextWebhook
from webhook_context.wiring import running
from webhook_shared.errors import ServiceError, from_rpc_error
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import EncryptionSection, IdentitySection, ProcessSection, RedisSection

INTERNAL_KEY = SecretStr(secrets.token_hex(32))
MASTER_KEY = SecretStr(secrets.token_urlsafe(48))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class House:
    """A running context store and a client of it."""

    address: str
    contexts: Any
    admin: Any

    async def append(self, *appends: context_service_pb2.Append) -> Sequence[Any]:
        """The results, in order."""
        response = await self.contexts.AppendEvents(context_service_pb2.AppendEventsRequest(appends=appends))
        results: Sequence[Any] = response.results
        return results

    async def get(self, context_id: str, tenant: str = "acme", **asked: Any) -> context_pb2.Context:
        request = context_service_pb2.GetContextRequest(context_id=context_id, tenant=tenant, **asked)
        found: context_pb2.Context = (await self.contexts.GetContext(request)).context
        return found

    async def update(self, context: context_pb2.Context, *paths: str, **asked: Any) -> context_pb2.Context:
        request = context_service_pb2.UpdateContextRequest(context=context, **asked)
        request.update_mask.paths.extend(paths)
        updated: context_pb2.Context = (await self.contexts.UpdateContext(request)).context
        return updated

    async def delete(self, context_id: str, tenant: str = "acme", etag: str = "") -> None:
        request = context_service_pb2.DeleteContextRequest(context_id=context_id, tenant=tenant, etag=etag)
        await self.contexts.DeleteContext(request)

    async def move(self, tier: str, context_id: str = "", **asked: Any) -> list[Any]:
        """All messages, the last one with the totals."""
        request = context_admin_service_pb2.ForceTransitionRequest(
            tenant=asked.pop("tenant", "acme"),
            tier=context_pb2.Tier.Value(f"TIER_{tier}"),
            context_id=context_id,
            **asked,
        )
        return [told async for told in self.admin.ForceTransition(request)]

    async def list(self, tenant: str = "acme", **asked: Any) -> Any:
        return await self.contexts.ListContexts(
            context_service_pb2.ListContextsRequest(tenant=tenant, **asked)
        )

    async def search(self, query: str = "", tenant: str = "acme", **asked: Any) -> Any:
        request = context_service_pb2.SearchContextsRequest(tenant=tenant, query=query, **asked)
        return await self.contexts.SearchContexts(request)

    async def enrich(
        self, context_id: str, summary: str = "", vector: Sequence[float] = (), *, etag: str = "", **more: Any
    ) -> context_pb2.Context:
        model = context_pb2.EmbeddingModel(provider="local", name="mini", dimension=len(vector))
        enrichment = context_pb2.Enrichment(summary=summary, vector=vector, embedding_model=model, **more)
        context = context_pb2.Context(tenant="acme", context_id=context_id, enrichment=enrichment)
        return await self.update(context, "enrichment", etag=etag)


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]
Refused = Callable[[Awaitable[Any], str, str], Awaitable[ServiceError]]


def webhook_of(redis: RedisSection, **sections: Any) -> ContextWebhook:
    """Settings over a server; cold contexts lie in a directory that is not there before."""
    return ContextWebhook(
        redis=redis,
        identity=IdentitySection(internal_key=INTERNAL_KEY),
        **{
            "encryption": EncryptionSection(master_key=MASTER_KEY),
            "cold_storage": ObjectStorageSection(directory=Path("/nonexistent/cold")),
            **sections,
        },
    )


@asynccontextmanager
async def _house(
    redis: RedisSection,
    key: SecretStr = INTERNAL_KEY,
    *,
    settling: Settling = USUAL_SETTLING,
    **sections: Any,
) -> AsyncIterator[House]:
    settings = ContextSettings(
        webhook=webhook_of(redis, **sections),
        process=ProcessSection(listen_address="127.0.0.1:0", drain_timeout=timedelta(seconds=1)),
    )
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(running(settings, settling=settling))
        address = f"127.0.0.1:{up.port}"
        channel = await stack.enter_async_context(connected(address, key=key, deadline_s=20))
        yield House(address, ContextServiceStub(channel), ContextAdminServiceStub(channel))


@pytest.fixture
def open_house() -> OpenHouse:
    """Opens one more replica over a server."""
    return _house


@pytest.fixture
async def house(valkey: RedisSection) -> AsyncIterator[House]:
    """One replica over an empty server, called with the internal key."""
    async with _house(valkey) as up:
        yield up


@pytest.fixture
def refused() -> Refused:
    """Awaits a call that must fail with this code and reason, and gives the error."""

    async def expect(call: Awaitable[Any], code: str, reason: str) -> ServiceError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = from_rpc_error(caught.value)
        assert (error.code.name, error.reason) == (code, reason)
        return error

    return expect


Make = Callable[..., context_service_pb2.Append]


@pytest.fixture
def make() -> Make:
    """Makes an append; `at` is in seconds after noon."""

    def made(event_id: str, context_id: str = "github:octo/hello:issue:1", **said: Any) -> Any:
        at = said.pop("at", 0)
        event = context_pb2.ContextEvent(
            event_id=event_id,
            type=said.pop("type", "issues"),
            action=said.pop("action", "opened"),
            actor=said.pop("actor", "mona"),
            text=said.pop("text", "something happened"),
            payload=said.pop("payload", b""),
            content_type="application/json",
        )
        event.occurred_time.FromDatetime(NOON + timedelta(seconds=at))
        event.received_time.FromDatetime(NOON + timedelta(days=1))
        fields = {"tenant": "acme", "tool": "github", "kind": "issue", **said}
        return context_service_pb2.Append(context_id=context_id, event=event, **fields)

    return made


@pytest.fixture
def payload() -> Callable[[], bytes]:
    """Makes a body of about the median size of GitHub's."""

    def made() -> bytes:
        body = {
            f"{part}_url": f"https://api.github.com/repos/octo/{secrets.token_hex(20)}" for part in range(90)
        }
        return json.dumps(body).encode()

    return made
