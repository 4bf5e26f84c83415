"""One family of errors, the same on both sides of a socket.

A servicer raises a `ServiceError`; the interceptor turns it into `google.rpc.Status` with one
`ErrorInfo` (and `BadRequest`, `RetryInfo` where they apply); the client turns that back into an equal
`ServiceError`. Messages never carry a driver's text, a secret or a payload.
"""

from __future__ import annotations

from typing import TypedDict

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "webhook"
_CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ServiceError(Exception):
    """A failure that a caller is meant to understand.

    Attributes:
        code: The gRPC status.
        reason: Stable, UPPER_SNAKE_CASE; what programs decide on.
        message: For people, one line.
        metadata: The variable parts of the message, for programs.
        fields: What is wrong with which request field.
        retry_after_s: When to come again, where we know; seconds.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        metadata: dict[str, str] | None = None,
        fields: dict[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.fields = fields or {}
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.code.name}/{self.reason}: {self.message}"

    def to_status(self) -> status_pb2.Status:
        """The error as it goes over the wire."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        _pack(status, error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata))
        if self.fields:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
                for field, description in self.fields.items()
            ]
            _pack(status, error_details_pb2.BadRequest(field_violations=violations))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1_000_000_000))
            _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
        return status


class InvalidArgument(ServiceError):
    """The request can't be right; `fields` says where."""

    def __init__(
        self, message: str, *, fields: dict[str, str] | None = None, reason: str = "FIELD_INVALID"
    ) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, reason, message, fields=fields)


class NotFound(ServiceError):
    """There is no such thing, or not for this caller."""

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(grpc.StatusCode.NOT_FOUND, reason, message, metadata=metadata)


class Aborted(ServiceError):
    """Somebody else was faster: read again, then try again."""

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(grpc.StatusCode.ABORTED, reason, message, metadata=metadata)


class FailedPrecondition(ServiceError):
    """Not in this state; repeating changes nothing."""

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(grpc.StatusCode.FAILED_PRECONDITION, reason, message, metadata=metadata)


class Unauthenticated(ServiceError):
    """No credential, or one that is worth nothing."""

    def __init__(
        self, reason: str = "CREDENTIAL_INVALID", message: str = "a valid API key is needed"
    ) -> None:
        super().__init__(grpc.StatusCode.UNAUTHENTICATED, reason, message)


class PermissionDenied(ServiceError):
    """A good credential that does not reach this far."""

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(grpc.StatusCode.PERMISSION_DENIED, reason, message, metadata=metadata)


class ResourceExhausted(ServiceError):
    """A limit is reached."""

    def __init__(
        self, reason: str, message: str, *, retry_after_s: float | None = None, **metadata: str
    ) -> None:
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason,
            message,
            metadata=metadata,
            retry_after_s=retry_after_s,
        )


class Unavailable(ServiceError):
    """Something that we need is away; the same call may be repeated."""

    def __init__(self, reason: str, message: str, *, retry_after_s: float | None = 1.0) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, reason, message, retry_after_s=retry_after_s)


class Internal(ServiceError):
    """Our own mistake; the log has the trace."""

    def __init__(self, message: str = "an internal error; see the log of the service") -> None:
        super().__init__(grpc.StatusCode.INTERNAL, "INTERNAL", message)


class ItemStatus(TypedDict):
    """The fields of `webhook.status.v1.ItemStatus`."""

    code: int
    reason: str
    message: str


OK = ItemStatus(code=0, reason="", message="")


def item_status(error: ServiceError | None) -> ItemStatus:
    """What one item of a batch answers: `ItemStatus(**item_status(error))`."""
    if error is None:
        return OK
    return ItemStatus(code=error.code.value[0], reason=error.reason, message=error.message)


def from_item_status(code: int, reason: str, message: str) -> ServiceError | None:
    """The error that an item of a batch answered with; None where it went well."""
    if code == 0:
        return None
    return ServiceError(_CODE_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN), reason, message)


def from_rpc_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """What the server meant, or what the transport suffered (reason PEER_UNREACHABLE, DEADLINE...)."""
    status = _status_of(error)
    if status is None:
        return ServiceError(error.code(), _transport_reason(error.code()), _transport_message(error))
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad_request.DESCRIPTOR):
            detail.Unpack(bad_request)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1_000_000_000
    return ServiceError(
        _CODE_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN),
        info.reason or _transport_reason(error.code()),
        status.message,
        metadata=dict(info.metadata),
        fields={v.field: v.description for v in bad_request.field_violations},
        retry_after_s=retry_after_s,
    )


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _transport_reason(code: grpc.StatusCode) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        return "PEER_UNREACHABLE"
    return code.name


def _transport_message(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return "the service can't be reached"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "the service did not answer in time"
    return (error.details() or error.code().name).splitlines()[0][:200]


def _pack(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]  # googleapis-common-protos ships partial stubs
    status.details.append(packed)


__all__ = [
    "OK",
    "Aborted",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "ItemStatus",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "ServiceError",
    "Unauthenticated",
    "Unavailable",
    "from_item_status",
    "from_rpc_error",
    "item_status",
]
