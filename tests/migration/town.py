"""A system whose gateway and consumer are replaced while senders go on sending."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from webhook_consumer.settings import ConsumerSettings
from webhook_consumer.wiring import running as consumer_running
from webhook_context.settings import ContextSettings
from webhook_context.wiring import running as context_running
from webhook_gateway.settings import GatewaySettings
from webhook_gateway.wiring import running as gateway_running
from webhook_security.settings import SecuritySettings
from webhook_security.wiring import running as security_running
from webhook_shared.redis import Client as Redis
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import RedisSection
from webhook_shared.sqs.client import SqsTrouble

from shared.tests.sqs_server import TestQueue
from tests import payloads, wire
from tests.clients import Client
from tests.senders import Delivery, GitHub

MASTER_KEY = SecretStr("a-master-key-for-the-tests-only-0123456789")
INTERNAL_KEY = SecretStr("the-internal-key-of-the-tests-0123456789")
SECRET_VARIABLE = "TEST_MIGRATION_SECRET"
SECRET = "a secret of the senders"
REPOSITORY = "octo/moves"
CONTEXTS = 4
SENDERS = 6
REPEATED_ONE_IN = 8
NOBODY = "127.0.0.1:1"
DRAINED_WITHIN_S = 180.0


class Town:
    """Senders, and whatever takes what they send at the moment.

    Attributes:
        gateway: host:port of the HTTP edge that senders use now.
        acknowledged: The event that each delivery was told to be, by number.
        repeated: Deliveries that were sent again after they had been acknowledged.
        pause_s: How long each sender rests after each acknowledgement.
    """

    def __init__(self, redis: RedisSection, var: Path) -> None:
        self._redis = redis
        self._var = var
        self._services: dict[str, str] = {"intelligence": NOBODY, "gateway": "127.0.0.1:0"}
        self._sender = GitHub(SECRET)
        self._dice = random.Random(4)
        self._numbers = iter(range(10**9))
        self._stopping = False
        self.gateway = NOBODY
        self.acknowledged: dict[int, str] = {}
        self.wrong: list[str] = []
        self.repeated = 0
        self.pause_s = 0.0

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Town]:
        """Security and the context store, which stay as they are."""
        common = self._common()
        async with AsyncExitStack() as stack:
            secrets = {"signature_secrets": {"github": f"env:{SECRET_VARIABLE}"}}
            security = SecuritySettings.model_validate(_tree(common, security=secrets))
            port = (await stack.enter_async_context(security_running(security))).port
            self._services["security"] = f"127.0.0.1:{port}"
            contexts = ContextSettings.model_validate(_tree(common))
            port = (await stack.enter_async_context(context_running(contexts))).port
            self._services["context"] = f"127.0.0.1:{port}"
            yield self

    def _common(self) -> dict[str, Any]:
        return {
            "redis": self._redis,
            "encryption": {"master_key": MASTER_KEY},
            "identity": {"internal_key": INTERNAL_KEY},
            "services": self._services,
            "cold_storage": {"directory": self._var / "cold"},
        }

    @asynccontextmanager
    async def gateway_with(self, **migration: Any) -> AsyncIterator[str]:
        """A gateway; its RPC door while inside."""
        async with gateway_running(self.gateway_settings(**migration)) as up:
            self.gateway = f"127.0.0.1:{up.http_port}"
            yield f"127.0.0.1:{up.port}"

    def gateway_settings(self, **migration: Any) -> GatewaySettings:
        """Of a gateway in this town."""
        gateway = {"http_address": "127.0.0.1:0", "policy_refresh": "100ms"}
        return GatewaySettings.model_validate(_tree(self._common(), gateway=gateway, migration=migration))

    @asynccontextmanager
    async def consumer_with(self, **migration: Any) -> AsyncIterator[str]:
        """A consumer, at work while inside; its RPC door."""
        async with consumer_running(self.consumer_settings(**migration)) as up:
            yield f"127.0.0.1:{up.port}"

    def consumer_settings(self, **migration: Any) -> ConsumerSettings:
        """Of a consumer in this town."""
        consumer = {"block_timeout": "100ms", "claim_idle_time": "2s"}
        return ConsumerSettings.model_validate(_tree(self._common(), consumer=consumer, migration=migration))

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Senders that never stop while inside, and finish what they have begun."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self._send())
            try:
                yield
            finally:
                self._stopping = True

    async def more(self, count: int, *, within_s: float = 60.0) -> None:
        """Wait until so many more deliveries are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(within_s):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.02)

    async def _send(self) -> None:
        past: list[tuple[int, Delivery]] = []
        while not self._stopping:
            await asyncio.sleep(self.pause_s)
            if past and self._dice.randrange(REPEATED_ONE_IN) == 0:
                number, delivery = self._dice.choice(past)
                event_id = await self._acknowledged(delivery)
                self.repeated += 1
                if event_id != self.acknowledged[number]:
                    self.wrong.append(f"{number}: {self.acknowledged[number]} then {event_id}")
                continue
            number = next(self._numbers)
            text = f"Comment {number}"
            issue = 1 + number % CONTEXTS
            body = payloads.github_comment(REPOSITORY, issue, "On the move", text)
            delivery = self._sender.deliver("issue_comment", body, delivery_id=f"move-{number}")
            self.acknowledged[number] = await self._acknowledged(delivery)
            past.append((number, delivery))

    async def _acknowledged(self, delivery: Delivery) -> str:
        while True:
            try:
                answer = await wire.post(self.gateway, delivery, within_s=5)
            except (wire.NoAnswerError, TimeoutError, OSError):
                answer = None
            if answer is not None and answer.status == 202:
                return answer.event_id
            assert answer is None or answer.status >= 500, answer
            await asyncio.sleep(self._dice.uniform(0.01, 0.1))

    async def kept(self) -> Counter[str]:
        """How often each event stands in the contexts, and whatever they count beyond that."""
        addresses = {**self._services, "consumer": NOBODY, "gateway": NOBODY}
        found: Counter[str] = Counter()
        async with AsyncExitStack() as stack:
            channels = {
                name: await stack.enter_async_context(connected(address, key=INTERNAL_KEY, deadline_s=10))
                for name, address in addresses.items()
            }
            client = Client(channels)
            for number in range(1, CONTEXTS + 1):
                context = await client.context(f"github:{REPOSITORY}:issue:{number}")
                assert context is not None
                found.update(event.event_id for event in context.events)
                found["counted twice"] += context.event_count - len(context.events)
        return +found


def _tree(common: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    return {
        "webhook": {**common, **sections},
        "process": {"listen_address": "127.0.0.1:0", "drain_timeout": "4s"},
    }


async def drained(made: TestQueue, redis: Redis) -> None:
    """Wait until neither queue holds anything."""

    async def is_empty() -> bool:
        try:
            return not (await made.size() or await redis.xlen("webhook-events"))
        except SqsTrouble:
            # A busy machine: it has not answered in time.
            return False

    async with asyncio.timeout(DRAINED_WITHIN_S):
        while not await is_empty():
            # The server counts all its messages each time, and does nothing else meanwhile.
            await asyncio.sleep(0.5)
