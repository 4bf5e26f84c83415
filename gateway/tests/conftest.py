"""The gateway on real sockets, with a small judge of deliveries behind it that really verifies."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import uuid_utils
from pydantic import SecretStr
from webhook.security.v1 import admission_pb2 as admission
from webhook.security.v1 import admission_service_pb2 as service
from webhook.security.v1 import admission_service_pb2_grpc as stubs
from webhook.security.v1.source_pb2 import EdgePolicy
from webhook_gateway.settings import GatewaySection, GatewaySettings, GatewayWebhook
from webhook_gateway.wiring import Running, running
from webhook_shared import redis as store
from webhook_shared.rpc import server
from webhook_shared.rpc.identity import Authenticator, Role
from webhook_shared.settings import IdentitySection, ProcessSection, RedisSection, ServicesSection

SECRET = b"a secret of the tests"
KEY = SecretStr("an internal key for tests, long enough")
LIMIT_BYTES = 256 * 1024


def policy(tool: str, **changes: Any) -> EdgePolicy:
    values: dict[str, Any] = {
        "max_body_bytes": LIMIT_BYTES,
        "content_types": ["application/json"],
        "methods": ["POST"],
        "accepted_status": 202,
        "duplicate_status": 202,
    }
    return EdgePolicy(tool=tool, **(values | changes))


class Judge(stubs.AdmissionServiceServicer):
    """HMAC over the body in `x-signature`, the delivery id in `x-delivery`."""

    def __init__(self) -> None:
        self.sources = [
            policy("github"),
            policy("linear", accepted_status=200, duplicate_status=200),
            policy("hooked", methods=["POST", "GET"]),
            policy("github", tenant="acme", max_body_bytes=64),
        ]
        self.seen: list[admission.Delivery] = []
        self.batches: list[int] = []
        self.delay_s = 0.0
        self.revision = "1"
        self.durability = admission.DURABILITY_UNSPECIFIED

    async def ListEdgePolicies(self, request: Any, context: Any) -> service.ListEdgePoliciesResponse:
        return service.ListEdgePoliciesResponse(policies=self.sources, revision=self.revision)

    async def Admit(self, request: service.AdmitRequest, context: Any) -> service.AdmitResponse:
        self.seen += request.deliveries
        self.batches.append(len(request.deliveries))
        await asyncio.sleep(self.delay_s)
        return service.AdmitResponse(verdicts=[self._judge(delivery) for delivery in request.deliveries])

    def _judge(self, delivery: admission.Delivery) -> admission.Verdict:
        if delivery.method == "GET":
            answer = admission.Answer(http_status=200, content_type="text/plain", body=delivery.query)
            return admission.Verdict(outcome=admission.OUTCOME_ANSWERED, answer=answer)
        headers = {header.name: header.value for header in delivery.headers}
        if not delivery.HasField("producer") and (refusal := self._refusal(delivery, headers)):
            return admission.Verdict(outcome=admission.OUTCOME_REFUSED, refusal=refusal)
        delivery_id = delivery.producer.delivery_id or headers.get("x-delivery", b"").decode()
        verdict = admission.Verdict(
            outcome=admission.OUTCOME_ADMITTED,
            dedup_key=f"{delivery.tool}-{delivery_id or hashlib.sha256(delivery.body).hexdigest()}",
            occurrences_allowed=1,
        )
        try:
            json.loads(delivery.body)
        except ValueError:
            verdict.outcome = admission.OUTCOME_QUARANTINED
        verdict.dedup_window.FromSeconds(60)
        verdict.durability = self.durability
        event = verdict.event
        event.id = str(uuid_utils.uuid7())
        event.tenant, event.tool = delivery.tenant, delivery.tool
        event.type, event.schema = delivery.producer.type or "push", 1
        event.received_time.CopyFrom(delivery.received_time)
        event.sealed = b"sealed:" + delivery.body
        event.traceparent = delivery.traceparent
        return verdict

    @staticmethod
    def _refusal(delivery: admission.Delivery, headers: dict[str, bytes]) -> int:
        if not delivery.body:
            return admission.REFUSAL_BODY_EMPTY
        if delivery.body == b'"cause"':
            return int(headers["x-cause"])
        if "x-signature" not in headers:
            return admission.REFUSAL_SIGNATURE_MISSING
        expected = signature(delivery.body).encode()
        return (
            0
            if hmac.compare_digest(headers["x-signature"], expected)
            else admission.REFUSAL_SIGNATURE_INVALID
        )


def signature(body: bytes) -> str:
    return hmac.new(SECRET, body, hashlib.sha256).hexdigest()


@asynccontextmanager
async def judging(judge: Judge, redis: store.Client, address: str = "127.0.0.1:0") -> AsyncIterator[int]:
    doors = server.Service(
        name="webhook.security.v1.AdmissionService",
        add=partial(stubs.add_AdmissionServiceServicer_to_server, judge),
        role=Role.INTERNAL,
    )
    async with server.serving(
        address, [doors], authenticator=Authenticator(redis, KEY), ready={}, drain_s=0.1
    ) as port:
        yield port


def settings(redis: RedisSection, security: str, **gateway: Any) -> GatewaySettings:
    section = GatewaySection(http_address="127.0.0.1:0", policy_refresh=timedelta(milliseconds=100))
    return GatewaySettings(
        webhook=GatewayWebhook(
            redis=redis,
            identity=IdentitySection(internal_key=KEY),
            services=ServicesSection(security=security, gateway="127.0.0.1:0"),
            gateway=section.model_copy(update=gateway),
        ),
        process=ProcessSection(drain_timeout=timedelta(seconds=3)),
    )


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Sender:
    """A raw connection to the gateway."""

    port: int
    reader: asyncio.StreamReader = field(init=False)
    writer: asyncio.StreamWriter = field(init=False)

    async def open(self) -> Sender:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, bodiless: bool = False) -> Reply:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if bodiless else int(headers.get("content-length", 0))
        return Reply(int(first.split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def closed(self, within_s: float = 5) -> bytes:
        """What still came before the gateway closed the connection."""
        return await asyncio.wait_for(self.reader.read(), within_s)

    def close(self) -> None:
        self.writer.close()


def post(
    body: bytes = b'{"a":1}',
    *,
    path: str = "/webhooks/github",
    delivery: str = "d-1",
    signed: str | None = None,
    method: str = "POST",
    content_type: str = "application/json",
    length: bool = True,
    extra: str = "",
) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: hooks.example\r\nX-Delivery: {delivery}\r\n"
    head += f"X-Signature: {signature(body) if signed is None else signed}\r\n" if signed != "" else ""
    head += f"Content-Type: {content_type}\r\n" if content_type else ""
    head += f"Content-Length: {len(body)}\r\n" if length else ""
    return head.encode("latin-1") + extra.encode("latin-1") + b"\r\n" + body


def chunked(body: bytes, size: int, trailer: str = "", **how: Any) -> bytes:
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    head = post(b"", signed=signature(body), length=False, extra="Transfer-Encoding: chunked\r\n", **how)
    return b"".join(
        [head, *(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks), b"0\r\n", trailer.encode(), b"\r\n"]
    )


@dataclass
class House:
    """What a test needs: the gateway, the judge, Redis, and ways to ask."""

    judge: Judge
    redis: store.Client
    ports: Running
    senders: list[Sender] = field(default_factory=list)

    async def sender(self) -> Sender:
        sender = await Sender(self.ports.http_port).open()
        self.senders.append(sender)
        return sender

    async def ask(self, data: bytes) -> Reply:
        return await (await self.sender()).ask(data)

    async def events(self, stream: str = "webhook-events") -> list[dict[bytes, bytes]]:
        return [entry for _, entry in await self.redis.xrange(stream)]


Opened = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def house_with(judge: Judge, valkey: RedisSection, redis: store.Client) -> Opened:
    @asynccontextmanager
    async def opened(**gateway: Any) -> AsyncIterator[House]:
        async with (
            judging(judge, redis) as port,
            running(settings(valkey, f"127.0.0.1:{port}", **gateway)) as ports,
        ):
            house = House(judge, redis, ports)
            yield house
        for sender in house.senders:
            sender.close()

    return opened


@pytest.fixture
async def house(house_with: Opened) -> AsyncIterator[House]:
    async with house_with() as opened:
        yield opened


class Kit:
    """The helpers of this file, for tests: they can't import a conftest."""

    post = staticmethod(post)
    chunked = staticmethod(chunked)
    signature = staticmethod(signature)
    policy = staticmethod(policy)
    settings = staticmethod(settings)
    judging = staticmethod(judging)
    House = House
    Sender = Sender
    key = KEY
    limit_bytes = LIMIT_BYTES


@pytest.fixture
def kit() -> type[Kit]:
    return Kit
