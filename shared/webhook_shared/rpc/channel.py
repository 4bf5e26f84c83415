"""A channel to another service: credential, deadline, retries and balancing included."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc.aio import ClientCallDetails
from pydantic import SecretStr

from webhook_shared import telemetry
from webhook_shared.rpc.renewed_channel import RenewedChannel
from webhook_shared.rpc.tls import CertificateFiles, Pem, channel_credentials, refuse_plain_text
from webhook_shared.settings import TlsSection

PLAIN = TlsSection()
"""No certificates: plain text, and only on this machine."""

Options = Sequence[tuple[str, Any]]

LARGEST_MESSAGE_BYTES = 64 * 2**20
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
_OPTIONS = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A service that comes back is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class _Signed:
    """Adds the credential, and the deadline where the caller sets none."""

    def __init__(self, key: SecretStr, deadline_s: float) -> None:
        secret = key.get_secret_value()
        self._authorization = f"Bearer {secret}" if secret else ""
        self._deadline_s = deadline_s

    def _signed(self, details: ClientCallDetails) -> ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._authorization:
            metadata.add("authorization", self._authorization)
        return ClientCallDetails(
            method=details.method,
            timeout=details.timeout if details.timeout is not None else self._deadline_s,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _SignedUnary(_Signed, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._signed(client_call_details), request)


class _SignedStream(_Signed, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._signed(client_call_details), request)


@asynccontextmanager
async def connected(
    address: str, *, key: SecretStr, deadline_s: float, tls: TlsSection = PLAIN
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel, closed on leaving. Connects when first used, and again whenever it must.

    Args:
        address: host:port; a name with several addresses is balanced over them.
        key: The credential to call with; empty where the certificate is it.
        deadline_s: For calls that set none, seconds. Retries stay within it.
        tls: The certificates; calls made after the files have changed use the new ones.

    Raises:
        TlsProblem: The certificates can't be used, or there are none and the address is off this machine.
    """
    interceptors: list[Any] = [_SignedUnary(key, deadline_s), _SignedStream(key, deadline_s)]
    if telemetry.tracing_is_on():
        from opentelemetry.instrumentation.grpc import (  # noqa: PLC0415  # slow to import, rarely needed
            aio_client_interceptors,
        )

        interceptors = [*aio_client_interceptors(), *interceptors]  # type: ignore[no-untyped-call]  # untyped library
    async with opened(address, tls, options=_OPTIONS, interceptors=interceptors) as channel:
        yield channel


def opened(
    address: str, tls: TlsSection, *, options: Options = (), interceptors: Sequence[Any] = ()
) -> grpc.aio.Channel:
    """A channel that adds nothing: no credential, no deadline, no retries. Close it.

    Raises:
        TlsProblem: As for `connected`.
    """
    target = address if "://" in address else f"dns:///{address}"
    if not tls.ca_file:
        refuse_plain_text(address, tls)
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)

    def made(pem: Pem) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            target, channel_credentials(pem), options=options, interceptors=interceptors
        )

    return RenewedChannel(CertificateFiles.of(tls), made)
