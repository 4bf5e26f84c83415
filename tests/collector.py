"""An OTLP/gRPC collector on a real socket that keeps what it is sent.

It runs on threads of its own: exporters must be answered also while a test's event loop is busy or gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

STOP_WITHIN_S = 2.0


@dataclass(frozen=True)
class Recorded:
    """One span.

    Attributes:
        process: The service.name of its resource: "webhook-gateway".
        span: As exported.
    """

    process: str
    span: Span

    @property
    def trace_id(self) -> str:
        """In hexadecimal."""
        return self.span.trace_id.hex()

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes whose values are texts."""
        return {pair.key: pair.value.string_value for pair in self.span.attributes}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._spans: list[Recorded] = []
        self.endpoint = ""

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take spans."""
        with self._lock:
            for resource in request.resource_spans:
                names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self._spans += [Recorded(names["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Recorded]:
        """All that have arrived so far."""
        with self._lock:
            return list(self._spans)

    def trace(self, trace_id: str) -> list[Recorded]:
        """Those of one trace."""
        return [recorded for recorded in self.spans() if recorded.trace_id == trace_id]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens while inside."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]  # untyped library
        collector, server
    )
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(STOP_WITHIN_S).wait()
