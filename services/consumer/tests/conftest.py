"""What the tests of the queue share: a lane on a real server, workers on it, handlers that remember."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from webhook.context.v1 import context_pb2
from webhook.context.v1.context_service_pb2 import (
    AppendEventsResponse,
    AppendOutcome,
    AppendResult,
    BatchGetContextsResponse,
    BatchGetResult,
    UpdateContextResponse,
)
from webhook.context.v1.context_service_pb2_grpc import (
    ContextServiceServicer,
    add_ContextServiceServicer_to_server,
)
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.intelligence.v1 import intelligence_service_pb2 as intelligence
from webhook.intelligence.v1.intelligence_service_pb2_grpc import (
    IntelligenceServiceServicer,
    add_IntelligenceServiceServicer_to_server,
)
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_consumer import metrics
from webhook_consumer.entry import DONE, Entry, Outcome
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.lanes import enrichment_lane, event_lanes
from webhook_consumer.queue.redis import RedisQueue
from webhook_consumer.settings import ConsumerSection, ConsumerSettings
from webhook_consumer.wiring import running
from webhook_consumer.workers.worker import Limits, Worker
from webhook_shared import redis as store
from webhook_shared.errors import Aborted, NotFound, ServiceError, item_status
from webhook_shared.rpc.identity import Authenticator, Role
from webhook_shared.rpc.server import Service, serving
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.settings import RedisSection
from webhook_shared.tasks import ended

from conftest import on_cluster
from shared.tests import sqs_server as servers

[LANE] = event_lanes(ConsumerSection(), on_cluster=on_cluster())
LIMITS = Limits(workers=4, batch=10, prefetch=100, idle_ms=60_000, drain_s=2.0)
POLICY = RetryPolicy(max_retries=3, base_s=0.02, cap_s=0.1)
SOON_S = 15.0


@dataclass
class Remembering:
    """A handler that notes what it was given, and answers as told."""

    answer: Callable[[Entry], Any] = lambda _: DONE
    seen: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        self.batches.append(len(entries))
        self.seen += [entry.text(b"id") for entry in entries]
        outcomes = [self.answer(entry) for entry in entries]
        return [await outcome if inspect.isawaitable(outcome) else outcome for outcome in outcomes]


class Lab:
    """One lane on one server, and workers that live in this process as if each had its own."""

    lane = LANE
    limits = LIMITS
    policy = POLICY
    handler = Remembering

    def __init__(self, settings: RedisSection, redis: store.Client) -> None:
        self.settings = settings
        self.redis = redis

    @asynccontextmanager
    async def queue(
        self, settings: RedisSection | None = None, *, block_ms: int = 200, lease_ms: int = 60_000
    ) -> AsyncIterator[RedisQueue]:
        """A queue with connections of its own."""
        client = store.connect(settings or self.settings)
        blocking = store.connect(settings or self.settings, block_s=block_ms / 1000)
        try:
            yield RedisQueue(self.lane, client, blocking, block_ms=block_ms, lease_ms=lease_ms)
        finally:
            await client.aclose()
            await blocking.aclose()

    @asynccontextmanager
    async def worker(
        self,
        handler: Any,
        *,
        crashing: bool = False,
        policy: RetryPolicy = POLICY,
        settings: RedisSection | None = None,
        block_ms: int = 200,
        parts: Mapping[str, Any] = MappingProxyType({}),
        **limits: Any,
    ) -> AsyncIterator[RedisQueue]:
        """A worker, drained on leaving; with `crashing` ended as SIGKILL would, settling nothing.

        `parts` are holds, budget and canaries, where a test wants some.
        """
        chosen = replace(LIMITS, **limits)
        async with self.queue(settings, block_ms=block_ms, lease_ms=chosen.idle_ms) as queue:
            worker = Worker(queue, handler, chosen, policy, metrics.EVENTS, **parts)
            await worker.__aenter__()
            try:
                yield queue
            finally:
                await (_kill(worker) if crashing else worker.__aexit__(None, None, None))

    async def kill(self, worker: Worker) -> None:
        """End a worker as SIGKILL would, settling nothing."""
        await _kill(worker)

    async def publish(self, count: int, *, start: int = 0, **fields: str) -> list[str]:
        """Queue entries; returns their event ids."""
        names = [f"event-{number}" for number in range(start, start + count)]
        for name in names:
            await self.redis.xadd(
                self.lane.stream, {"id": name, "tool": "github", "tenant": "default", **fields}
            )
        return names

    async def is_empty(self) -> bool:
        """Whether all work is done: nothing in the stream, pending, or delayed."""
        async with self.redis.pipeline(transaction=True) as at_one_instant:
            at_one_instant.xlen(self.lane.stream).zcard(self.lane.delayed).zcard(self.lane.parked)
            counts = await at_one_instant.execute()
        return not any(counts) and await self.pending() == 0

    async def pending(self) -> int:
        """How many entries are in flight."""
        try:
            return int((await self.redis.xpending(self.lane.stream, self.lane.group))["pending"])
        except store.ResponseError:
            return 0

    async def dead(self) -> list[dict[str, str]]:
        """The dead letters' fields, oldest first."""
        rows = await self.redis.xrange(self.lane.dead_letters)
        return [{k.decode(): v.decode(errors="replace") for k, v in fields.items()} for _, fields in rows]

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], within_s: float = SOON_S) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(within_s):
            while True:
                held = condition()
                if await held if inspect.isawaitable(held) else held:
                    return
                await asyncio.sleep(0.01)


async def _kill(worker: Worker) -> None:
    tasks = [worker._reading, *worker._working, *worker._keeping, worker._beating]
    await ended(tasks)


@pytest.fixture(scope="session")
def sqs_server() -> Iterator[str]:
    """The URL of an SQS server."""
    with servers.sqs_server() as url:
        yield url


@pytest.fixture
def lab(valkey: RedisSection, redis: store.Client) -> Lab:
    """On the shared server, emptied."""
    return Lab(valkey, redis)


@pytest.fixture
async def own_lab(redis_server: Any) -> AsyncIterator[Lab]:
    """On a server of its own, to stop and to kill: `lab.server`."""
    client = store.connect(redis_server.settings)
    own = Lab(redis_server.settings, client)
    own.server = redis_server  # type: ignore[attr-defined]  # only these tests reach for it
    yield own
    await client.aclose()


KEY = SecretStr("the-internal-key-of-the-tests-0123456789")
MASTER = SecretStr("a-master-key-for-the-tests-only-0123456789")


class Contexts(ContextServiceServicer):
    """A context store that forgets when the test ends; contexts by (tenant, id), events once each."""

    def __init__(self) -> None:
        self.contexts: dict[tuple[str, str], context_pb2.Context] = {}
        self.refusal: ServiceError | None = None
        self.refuse: Callable[[Any], ServiceError | None] = lambda _: None
        self.requests: list[Any] = []
        self.between = lambda: None

    def events(self) -> list[str]:
        """The ids of all events in all contexts."""
        return [event.event_id for context in self.contexts.values() for event in context.events]

    async def AppendEvents(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        results = []
        for append in request.appends:
            error = self.refuse(append)
            results.append(
                AppendResult(status=ItemStatus(**item_status(error)))
                if error
                else self.foresee(append)
                if request.dry_run
                else self.add(append)
            )
        return AppendEventsResponse(results=results)

    def foresee(self, append: Any) -> AppendResult:
        held = self.contexts.get((append.tenant, append.context_id))
        if held is None:
            return AppendResult(outcome=AppendOutcome.APPEND_OUTCOME_CREATED)
        known = {event.event_id: event for event in held.events}
        if append.event.event_id not in known:
            return AppendResult(outcome=AppendOutcome.APPEND_OUTCOME_APPENDED)
        same = known[append.event.event_id] == append.event
        outcome = AppendOutcome.APPEND_OUTCOME_DUPLICATE if same else AppendOutcome.APPEND_OUTCOME_DIFFERENT
        return AppendResult(duplicate=True, outcome=outcome)

    def add(self, append: Any) -> AppendResult:
        where = (append.tenant, append.context_id)
        held = self.contexts.setdefault(
            where,
            context_pb2.Context(
                tenant=append.tenant, context_id=append.context_id, kind=append.kind, title=append.title
            ),
        )
        if any(event.event_id == append.event.event_id for event in held.events):
            return AppendResult(duplicate=True, version=held.version)
        held.events.append(append.event)
        held.event_count += 1
        self._touch(held)
        return AppendResult(version=held.version)

    async def BatchGetContexts(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        results = []
        for context_id in request.context_ids:
            held = self.contexts.get((request.tenant, context_id))
            if held is None:
                gone = NotFound("CONTEXT_NOT_FOUND", "there is no such context")
                results.append(BatchGetResult(status=ItemStatus(**item_status(gone))))
                continue
            copy = context_pb2.Context()
            copy.CopyFrom(held)
            del copy.events[: -request.max_events]
            results.append(BatchGetResult(context=copy))
        return BatchGetContextsResponse(results=results)

    async def UpdateContext(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.between()
        held = self.contexts[request.context.tenant, request.context.context_id]
        if request.etag and request.etag != held.etag:
            raise Aborted("ETAG_MISMATCH", "it has changed", etag=held.etag)
        assert list(request.update_mask.paths) == ["enrichment"]
        held.enrichment.CopyFrom(request.context.enrichment)
        self._touch(held)
        return UpdateContextResponse(context=held)

    def _touch(self, held: context_pb2.Context) -> None:
        held.version += 1
        held.etag = f"v{held.version}"


class Intelligence(IntelligenceServiceServicer):
    """Understands nothing, and says so in a well-formed way."""

    def __init__(self) -> None:
        self.subjects: list[Any] = []
        self.refusal: ServiceError | None = None
        self.refuse: Callable[[Any], ServiceError | None] = lambda _: None
        self.defers = 0

    async def Analyze(self, request: Any, context: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.subjects += request.subjects
        analyses = []
        for subject in request.subjects:
            error = self.refuse(subject)
            if error:
                analyses.append(intelligence.Analysis(status=ItemStatus(**item_status(error))))
                continue
            analyses.append(
                intelligence.Analysis(
                    vector=[0.6, 0.8],
                    summary=" ".join([subject.summary, *(h.event_id for h in subject.happenings)]).strip(),
                    summary_model="extractive",
                    importance=0.5,
                    importance_factors=[intelligence.ImportanceFactor(name="activity", contribution=0.5)],
                    entities=[intelligence.Entity(kind="person", value="mona")],
                    deferred_count=min(self.defers, len(subject.happenings)),
                )
            )
        model = intelligence.EmbeddingModel(provider="local", name="minilm", dimension=2)
        return intelligence.AnalyzeResponse(analyses=analyses, model=model)


@asynccontextmanager
async def served(
    redis: store.Client, name: str, add: Callable[[Any], None], address: str
) -> AsyncIterator[int]:
    """One of the above on a real socket, guarded as the real one is."""
    service = Service(name, add, Role.WRITER)
    async with serving(
        address, [service], authenticator=Authenticator(redis, KEY), ready={}, drain_s=0.1
    ) as port:
        yield port


class Town(Lab):
    """The consumer with both its neighbours, all on real sockets."""

    def __init__(self, settings: RedisSection, redis: store.Client, cold: Path) -> None:
        super().__init__(settings, redis)
        self.contexts = Contexts()
        self.archive: dict[str, Any] = {}
        self.cold = cold
        self.intelligence = Intelligence()
        self.keyring = Keyring(redis, MASTER)
        self.context_address = f"127.0.0.1:{free_port()}"
        self.intelligence_address = f"127.0.0.1:{free_port()}"
        self.enrichment = enrichment_lane(ConsumerSection(), on_cluster=on_cluster())

    def context_store(self) -> Any:
        """The context store, serving while inside."""
        return served(
            self.redis,
            "webhook.context.v1.ContextService",
            lambda server: add_ContextServiceServicer_to_server(self.contexts, server),
            self.context_address,
        )

    def understanding(self) -> Any:
        """Intelligence, serving while inside."""
        return served(
            self.redis,
            "webhook.intelligence.v1.IntelligenceService",
            lambda server: add_IntelligenceServiceServicer_to_server(self.intelligence, server),
            self.intelligence_address,
        )

    def consumer(self, **overrides: Any) -> Any:
        """The consumer, at work while inside, with short times."""
        consumer = {
            "retry_backoff_base": "20ms",
            "retry_backoff_cap": "100ms",
            "block_timeout": "200ms",
            "circuit_breaker": {"open_time": "50ms", "open_time_cap": "100ms"},
            **overrides,
            "enrichment": {"settle_delay": "0s", **overrides.get("enrichment", {})},
        }
        return running(
            ConsumerSettings(
                webhook={
                    "redis": self.settings,
                    "encryption": {"master_key": MASTER},
                    "identity": {"internal_key": KEY},
                    "services": {
                        "context": self.context_address,
                        "intelligence": self.intelligence_address,
                    },
                    "consumer": consumer,
                    "archive": self.archive,
                    "cold_storage": {"directory": self.cold},
                },
                process={"listen_address": "127.0.0.1:0", "drain_timeout": "2s"},
            )
        )

    async def send(
        self,
        number: int,
        *,
        tenant: str = "default",
        payload: bytes = b"",
        fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Queue a sealed issue event; returns its id. `fields` replace those of the entry; None drops one."""
        event_id = f"0190-{tenant}-{number}"
        body = payload or orjson.dumps(
            {
                "action": "opened",
                "issue": {
                    "number": number,
                    "title": f"Problem {number}",
                    "body": "It does not work.",
                    "html_url": f"https://github.com/octo/hello/issues/{number}",
                    "state": "open",
                    "user": {"login": "mona"},
                },
                "repository": {"full_name": "octo/hello", "name": "hello", "owner": {"login": "octo"}},
                "sender": {"login": "mona"},
            }
        )
        event = WebhookEvent(
            id=event_id,
            tenant=tenant,
            tool="github",
            type="issues",
            action="opened",
            delivery_id=event_id,
            payload=body,
            content_type="application/json",
        )
        event.received_time.GetCurrentTime()
        await self.keyring.prepare([tenant])
        entry = {
            "id": event_id,
            "tenant": tenant,
            "tool": "github",
            "type": "issues",
            "received": str(event.received_time.ToMilliseconds()),
            "schema": "1",
            "sealed": self.keyring.seal(tenant, event.SerializeToString(), "event", event_id),
            **fields,
        }
        await self.redis.xadd(self.lane.stream, {k: v for k, v in entry.items() if v is not None})
        return event_id


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def town(valkey: RedisSection, redis: store.Client, tmp_path: Path) -> Town:
    """On the shared server, emptied."""
    return Town(valkey, redis, tmp_path / "cold")
