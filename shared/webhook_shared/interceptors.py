"""What surrounds every RPC that we serve: who may call, how errors travel, what is counted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status
from prometheus_client import Counter, Histogram

from webhook_shared.errors import (
    Internal,
    InvalidArgument,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from webhook_shared.identity import Authenticator, Caller, Role, caller, set_caller
from webhook_shared.redis import REDIS_TROUBLE

log = structlog.get_logger()

OPEN_SERVICES = ("/grpc.health.v1.", "/grpc.reflection.")

_handled = Counter("webhook_rpc_handled_total", "RPCs answered.", ["method", "code"])
_seconds = Histogram(
    "webhook_rpc_duration_seconds",
    "Time to answer an RPC.",
    ["method"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class Guarded(grpc.aio.ServerInterceptor):
    """Authenticates, authorises, translates errors, counts.

    Args:
        authenticator: Knows the credentials.
        role_of: The role that a method ("/webhook.x.v1.Y/Z") needs; None refuses everybody.
    """

    def __init__(self, authenticator: Authenticator, role_of: Callable[[str], Role | None]) -> None:
        self._authenticator = authenticator
        self._role_of = role_of

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Put the guard around a handler of ours; health and reflection stay open."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        authorization = next((str(value) for key, value in metadata if key == "authorization"), "")
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, authorization, handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, authorization, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise TypeError(f"{method}: only unary requests are served")

    def _unary(self, method: str, authorization: str, inner: Any) -> Any:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            try:
                await self._admit(method, authorization, context)
                response = await inner(request, context)
            except Exception as error:  # noqa: BLE001  # every failure leaves as a status
                await _fail(method, error, context)
            _handled.labels(method, "OK").inc()
            _seconds.labels(method).observe(time.perf_counter() - started)
            return response

        return guarded

    def _stream(self, method: str, authorization: str, inner: Any) -> Any:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                await self._admit(method, authorization, context)
                async for response in inner(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001  # every failure leaves as a status
                await _fail(method, error, context)
            _handled.labels(method, "OK").inc()

        return guarded

    async def _admit(
        self, method: str, authorization: str, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if authorization:
            set_caller(await self._authenticator.authenticate(authorization))
        else:
            set_caller(self._certified(context))
        role = self._role_of(method)
        if role is None:
            raise PermissionDenied("METHOD_CLOSED", "nobody may call this method")
        if not caller().has(role):
            raise PermissionDenied(
                "ROLE_MISSING", f"this needs a credential with the role {role.name.lower()}", role=role.name
            )

    def _certified(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        shown = context.auth_context()
        if not shown.get("x509_pem_cert"):
            raise Unauthenticated(message="send an API key as metadata `authorization: Bearer <key>`")
        uris = [uri.decode("utf-8", "replace") for uri in shown.get("peer_uri", ())]
        common_name = b"".join(shown.get("x509_common_name", ())).decode("utf-8", "replace")
        return self._authenticator.certificates.caller(uris, common_name)


class UnaryTraced(grpc.aio.ServerInterceptor):
    """Traces calls that have one answer, and no streams.

    A stream that its client ends early is closed in another context than it was opened in, which the tracer
    reports as an error; and a span that lasts as long as somebody looks says nothing.

    Args:
        tracer: Traces.
    """

    def __init__(self, tracer: grpc.aio.ServerInterceptor) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let the tracer have the handler, if it answers once."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def found(_: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
            return handler

        return await self._tracer.intercept_service(found, handler_call_details)


async def _fail(method: str, error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    failure = _as_service_error(method, error)
    _handled.labels(method, failure.code.name).inc()
    await context.abort_with_status(rpc_status.to_status(failure.to_status()))


def _as_service_error(method: str, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, REDIS_TROUBLE):
        log.warning("rpc.store_unreachable", method=method, error=type(error).__name__)
        return Unavailable("STORE_UNREACHABLE", "the store can't be reached; try again")
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, UnicodeError):
        return InvalidArgument("a text is not valid Unicode", reason="TEXT_INVALID")
    log.error("rpc.failed", method=method, exc_info=error)
    return Internal()
