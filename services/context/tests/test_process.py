"""The process as an operator starts it, and the trace that reaches the context."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from pydantic import SecretStr
from webhook.context.v1 import context_service_pb2
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_shared.rpc.channel import connected
from webhook_shared.tasks import ended

ENVIRONMENT = {
    "ENCRYPTION_MASTER_KEY": "0123456789abcdefghijklmnopqrstuvwxyz",
    "WEBHOOK_INTERNAL_KEY": "k" * 32,
}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP endpoint that remembers."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.address = ""

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    server, found = grpc.aio.server(), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    found.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield found
    await server.stop(0)


async def _started(**environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webhook_context"),
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, **environment},
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_trace_reaches_its_context(valkey: Any, make: Any, collector: Collector) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = await _started(
        REDIS_ADDRESSES=valkey.addresses[0],
        WEBHOOK_LISTEN_ADDRESS=address,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
    )
    try:
        key = SecretStr(ENVIRONMENT["WEBHOOK_INTERNAL_KEY"])
        async with connected(address, key=key, deadline_s=20) as channel:
            request = context_service_pb2.AppendEventsRequest(
                appends=[
                    make("e1", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
                    make("e2", traceparent="00-" + "c" * 32 + "-" + "d" * 16 + "-00"),
                    make("e3"),
                ]
            )
            response = await ContextServiceStub(channel).AppendEvents(request, wait_for_ready=True)
            assert [result.status.code for result in response.results] == [0, 0, 0]
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0
    (span,) = [span for span in collector.spans if span.name == "context.append"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("a" * 32, "b" * 16)


async def test_a_weak_master_key_is_refused(valkey: Any) -> None:
    process = await _started(REDIS_ADDRESSES=valkey.addresses[0], ENCRYPTION_MASTER_KEY="short")
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"ENCRYPTION_MASTER_KEY must be at least 32" in said


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    async def stubborn() -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await ended([task])
    assert task.cancelled()
