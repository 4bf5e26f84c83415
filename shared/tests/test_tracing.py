"""What the tracer is let near."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import wrappers_pb2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from webhook_shared import telemetry
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import Authenticator, Role
from webhook_shared.rpc.server import Service, serving

KEY = SecretStr("k" * 40)
NAME = "test.v1.ClockService"


async def once(request: wrappers_pb2.StringValue, _: Any) -> wrappers_pb2.StringValue:
    return request


async def ticks(request: wrappers_pb2.StringValue, _: Any) -> AsyncIterator[wrappers_pb2.StringValue]:
    while True:
        yield request
        await asyncio.sleep(0.01)


def add(server: grpc.aio.Server) -> None:
    parse, write = wrappers_pb2.StringValue.FromString, wrappers_pb2.StringValue.SerializeToString
    handlers = {
        "Once": grpc.unary_unary_rpc_method_handler(once, parse, write),
        "Ticks": grpc.unary_stream_rpc_method_handler(ticks, parse, write),
    }
    server.add_registered_method_handlers(NAME, handlers)


async def test_a_stream_that_its_reader_ends_leaves_no_error_and_a_call_leaves_a_span(
    redis: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(telemetry, "tracing_is_on", lambda: True)
    service = Service(NAME, add, Role.READER)
    parse, write = wrappers_pb2.StringValue.FromString, wrappers_pb2.StringValue.SerializeToString
    said = wrappers_pb2.StringValue(value="x")
    with caplog.at_level(logging.ERROR):
        async with serving(
            "127.0.0.1:0", [service], authenticator=Authenticator(redis, KEY), ready={}, drain_s=1
        ) as port:
            monkeypatch.setattr(telemetry, "tracing_is_on", lambda: False)
            async with connected(f"127.0.0.1:{port}", key=KEY, deadline_s=5) as channel:
                call: Any = channel.unary_stream(f"/{NAME}/Ticks", write, parse)(said)
                assert (await call.read()).value == "x"
                call.cancel()
                rpc: Any = channel.unary_unary(f"/{NAME}/Once", write, parse)
                assert (await rpc(said)).value == "x"
            await asyncio.sleep(0.1)
    assert not [record.message for record in caplog.records if "detach" in record.message]
    assert [span.name for span in spans.get_finished_spans()] == [f"/{NAME}/Once"]
