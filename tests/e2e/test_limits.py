"""Every limit that the configuration sets holds at both doors: HTTP, and the RPC door of our producers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from pydantic import SecretStr
from webhook.ingest.v1.ingest_service_pb2 import IngestEventsRequest, IngestResult, ProducedEvent
from webhook.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from webhook_gateway import wiring as gateway
from webhook_gateway.settings import GatewaySettings
from webhook_security import wiring as security
from webhook_security.settings import SecuritySettings
from webhook_shared import redis as store
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.settings import RedisSection

from tests import wire
from tests.clients import refusal
from tests.senders import AnyTool, Delivery, GitHub
from tests.wire import Answer

GITHUB = GitHub("the secret of github")
ACME = AnyTool("acme", "the secret of acme")
EVENT = {"action": "opened"}
#: With a rate of one per second: ten at once, and no eleventh within a test's few milliseconds.
TEN: dict[str, Any] = {"rate_limit_burst": "10s"}


@dataclass(frozen=True)
class Doors:
    """Gateway and security, in this process, on real sockets."""

    http: str
    producer: Any

    async def post(self, delivery: Delivery) -> Answer:
        return await wire.post(self.http, delivery)

    async def posted(self, times: int) -> list[int]:
        """The statuses of so many deliveries of the tool acme, sent at once, in order of their numbers."""
        return sorted(answer.status for answer in await self.answers(times))

    async def answers(self, times: int) -> list[Answer]:
        """What so many deliveries of the tool acme, sent at once, were answered."""
        return await asyncio.gather(*(self.post(ACME.deliver("deployed", EVENT)) for _ in range(times)))

    async def produced(self, times: int, *, payload: bytes = b'{"a":1}') -> list[IngestResult]:
        """What became of so many events of the tool acme."""
        events = [ProducedEvent(tool="acme", payload=payload, delivery_id=str(n)) for n in range(times)]
        return list((await self.producer.IngestEvents(IngestEventsRequest(events=events))).results)


Opened = Callable[..., AbstractAsyncContextManager[Doors]]


@pytest.fixture
def doors(
    valkey: RedisSection, redis: store.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Opened:
    """`async with doors({webhook.security}, {webhook.gateway})`: the keys of a file, as it is written."""
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", GITHUB.secret)
    monkeypatch.setenv("ACME_WEBHOOK_SECRET", ACME.secret)

    @asynccontextmanager
    async def opened(
        security_keys: dict[str, Any], gateway_keys: dict[str, Any] | None = None
    ) -> AsyncIterator[Doors]:
        file = tmp_path / "config.yaml"
        edge = {"http_address": "127.0.0.1:0", **(gateway_keys or {})}
        file.write_text(yaml.safe_dump({"webhook": {"security": security_keys, "gateway": edge}}))
        environ = {
            "REDIS_ADDRESSES": valkey.addresses[0],
            "ENCRYPTION_MASTER_KEY": "kTzW8r5J2mQx7LcV0bNf4HsY9dGa1EpU3oRi6SwB",
            "WEBHOOK_INTERNAL_KEY": "internal-internal-internal-internal-0001",
            "WEBHOOK_LISTEN_ADDRESS": "127.0.0.1:0",
            "WEBHOOK_DRAIN_TIMEOUT": "1s",
        }
        async with AsyncExitStack() as stack:
            judge = await stack.enter_async_context(
                security.running(SecuritySettings.load(file=file, environ=environ))
            )
            environ["WEBHOOK_SECURITY_ADDRESS"] = f"127.0.0.1:{judge.port}"
            ports = await stack.enter_async_context(
                gateway.running(GatewaySettings.load(file=file, environ=environ))
            )
            _, secret = await ApiKeys(redis).mint("ci", ["default"], [Role.WRITER])
            channel = await stack.enter_async_context(
                connected(f"127.0.0.1:{ports.port}", key=SecretStr(secret), deadline_s=10)
            )
            yield Doors(f"127.0.0.1:{ports.http_port}", IngestServiceStub(channel))

    return opened


def reasons(results: list[IngestResult]) -> list[str]:
    return [result.status.reason for result in results]


@pytest.mark.parametrize(
    "keys",
    [
        {"global_rate_limit": 1},
        {"per_tool_rate_limits": {"acme": 1}},
        {"per_tenant_rate_limits": {"default": 1}},
    ],
)
async def test_a_rate_holds_over_http(doors: Opened, keys: dict[str, Any]) -> None:
    async with doors({**TEN, **keys}) as open_:
        answers = await open_.answers(12)
        assert sorted(answer.status for answer in answers) == [202] * 10 + [429] * 2
        assert all(int(each.headers["retry-after"]) >= 1 for each in answers if each.status == 429)


@pytest.mark.parametrize(
    "keys",
    [
        {"global_rate_limit": 1},
        {"per_tool_rate_limits": {"acme": 1}},
        {"per_tenant_rate_limits": {"default": 1}},
    ],
)
async def test_a_rate_holds_for_producers(doors: Opened, keys: dict[str, Any]) -> None:
    async with doors({**TEN, **keys}) as open_:
        results = await open_.produced(12)
        assert sorted(reasons(results)) == [""] * 10 + ["RATE_LIMITED"] * 2
        assert all(result.retry_after.ToMilliseconds() > 0 for result in results if result.status.code)


async def test_both_doors_draw_from_one_rate(doors: Opened) -> None:
    async with doors({**TEN, "per_tool_rate_limits": {"acme": 1}}) as open_:
        assert await open_.posted(6) == [202] * 6
        assert sorted(reasons(await open_.produced(6))) == [""] * 4 + ["RATE_LIMITED"] * 2


async def test_rate_limiting_may_be_switched_off(doors: Opened) -> None:
    async with doors({"global_rate_limit": 1, "enable_rate_limiting": False}) as open_:
        assert await open_.posted(4) == [202] * 4
        assert reasons(await open_.produced(4)) == [""] * 4


async def test_a_sender_that_never_retries_is_taken_over_the_rate(doors: Opened) -> None:
    async with doors({**TEN, "per_tool_rate_limits": {"github": 1}}) as open_:
        statuses = [(await open_.post(GITHUB.deliver("issues", EVENT))).status for _ in range(13)]
        assert statuses == [202] * 13
    async with doors(
        {**TEN, "per_tool_rate_limits": {"github": 1}, "sources": {"github": {"over_limit": "reject"}}}
    ) as open_:
        assert 429 in [(await open_.post(GITHUB.deliver("issues", EVENT))).status for _ in range(13)]


async def test_what_nobody_believes_takes_nothing_from_a_source(doors: Opened) -> None:
    forged = AnyTool("acme", "guessed").deliver("deployed", EVENT)
    async with doors({**TEN, "global_rate_limit": 1}) as open_:
        assert {(await open_.post(forged)).status for _ in range(15)} == {401}
        assert await open_.posted(10) == [202] * 10


async def test_a_flood_of_forgeries_is_shed_at_the_edge(doors: Opened) -> None:
    forged = AnyTool("acme", "guessed").deliver("deployed", EVENT)
    async with doors({}, {"unbelieved_rate_limit": 1}) as open_:
        statuses = [(await open_.post(forged)).status for _ in range(9)]
        assert statuses[:5] == [401] * 5
        assert 429 in statuses
        # A credential of ours is no address: producers go on.
        assert reasons(await open_.produced(1)) == [""]


async def test_the_largest_payload(doors: Opened) -> None:
    large = b'{"a":"%s"}' % (b"x" * 3000)
    async with doors({"max_payload_size": 2048}) as open_:
        assert (await open_.post(ACME.deliver("deployed", large))).status == 413
        assert reasons(await open_.produced(1, payload=large)) == ["PAYLOAD_TOO_LARGE"]
        assert await open_.posted(1) == [202]
        assert reasons(await open_.produced(1)) == [""]
    async with doors({"max_payload_size": "4KiB"}) as open_:
        assert (await open_.post(ACME.deliver("deployed", large))).status == 202
        assert reasons(await open_.produced(1, payload=large)) == [""]


async def test_room_for_bodies_is_shared_by_both_doors(doors: Opened) -> None:
    large = b'{"a":"%s"}' % (b"x" * 3000)
    async with doors({}, {"max_body_memory": 2048}) as open_:
        assert (await open_.post(ACME.deliver("deployed", large))).status == 503
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await open_.produced(1, payload=large)
        assert refusal(caught.value) == (grpc.StatusCode.UNAVAILABLE, "TOO_BUSY")
        assert await open_.posted(1) == [202]
        assert reasons(await open_.produced(1)) == [""]


async def test_only_listed_addresses_send(doors: Opened) -> None:
    allowed = {"acme": ["203.0.113.0/24", "2001:db8::/48"]}
    behind = {"trusted_proxies": ["127.0.0.1"]}
    async with doors({"allowed_addresses": allowed}, behind) as open_:

        async def status(forwarded: str) -> int:
            delivery = ACME.deliver("deployed", EVENT).having("X-Forwarded-For", forwarded)
            return (await open_.post(delivery)).status

        assert [await status(peer) for peer in ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8::7")] == [
            202
        ] * 3
        # What the sender wrote itself stands to the left.
        assert [await status(peer) for peer in ("8.8.8.8", "203.0.113.7, 8.8.8.8", "unknown")] == [403] * 3
        assert (await open_.post(GITHUB.deliver("issues", EVENT))).status == 202
        # Producers prove who they are, wherever they are.
        assert reasons(await open_.produced(1)) == [""]


async def test_without_a_trusted_proxy_the_header_says_nothing(doors: Opened) -> None:
    async with doors({"allowed_addresses": {"acme": ["203.0.113.0/24"]}}) as open_:
        delivery = ACME.deliver("deployed", EVENT).having("X-Forwarded-For", "203.0.113.7")
        assert (await open_.post(delivery)).status == 403
    async with doors({"allowed_addresses": {"acme": ["127.0.0.0/8"]}}) as open_:
        assert (await open_.post(delivery)).status == 202
