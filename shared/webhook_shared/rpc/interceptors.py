"""What surrounds every RPC that we serve: who may call, how errors travel, what is counted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.rpc.identity import Authenticator, Caller, Role, set_caller

log = structlog.get_logger()

_handled = Counter("webhook_rpc_handled_total", "RPCs answered.", ["method", "code"])
_seconds = Histogram(
    "webhook_rpc_duration_seconds",
    "Time to answer an RPC.",
    ["method"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]


class ByName:
    """A server to which services are added so that their methods are found by name.

    grpc.aio waits for each method that is registered with it, anew for every call: with twenty of them that
    costs half as much as a bare call does.

    Args:
        server: Serves what comes through.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        """Adds nothing: generated code adds all of these as registered ones, too."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Adds them, but registers nothing."""
        handlers = {
            name: self.handler(f"/{service_name}/{name}", handler)
            for name, handler in method_handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))

    def handler(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """What serves a method ("/webhook.x.v1.Y/Z")."""
        return handler


class Guarded(ByName):
    """A server to which services are added: each of their methods gets a guard, once.

    It authenticates, authorises, translates errors, counts. An interceptor would make a guard for every call.

    Args:
        server: Serves what comes through.
        authenticator: Knows the credentials.
        role_of: The role that a method ("/webhook.x.v1.Y/Z") needs; None refuses everybody.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        authenticator: Authenticator,
        role_of: Callable[[str], Role | None],
    ) -> None:
        super().__init__(server)
        self._authenticator = authenticator
        self._role_of = role_of

    def handler(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler with its guard."""
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise TypeError(f"{method}: only unary requests are served")

    def _unary(self, method: str, inner: Any) -> Any:
        handled, seconds = _handled.labels(method, "OK"), _seconds.labels(method)
        role = self._role_of(method)

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            try:
                await self._admit(role, context)
                response = await inner(request, context)
            except Exception as error:  # noqa: BLE001  # every failure leaves as a status
                await _fail(method, error, context)
            handled.inc()
            seconds.observe(time.perf_counter() - started)
            return response

        return guarded

    def _stream(self, method: str, inner: Any) -> Any:
        role = self._role_of(method)

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                await self._admit(role, context)
                async for response in inner(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001  # every failure leaves as a status
                await _fail(method, error, context)
            _handled.labels(method, "OK").inc()

        return guarded

    async def _admit(self, role: Role | None, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        authorization = next(
            (value for key, value in context.invocation_metadata() or () if key == "authorization"), ""
        )
        if authorization:
            found = await self._authenticator.authenticate(str(authorization))
        else:
            found = self._certified(context)
        set_caller(found)
        if role is None:
            raise PermissionDenied("METHOD_CLOSED", "nobody may call this method")
        if not found.has(role):
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
