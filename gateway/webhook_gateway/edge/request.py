"""One HTTP request, while it arrives and while it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webhook_gateway.answers import Answer
    from webhook_gateway.routes import Route


class Request:
    """Filled by the connection, judged by the edge.

    Attributes:
        peer: The address of the sender; until the headers are in, of the other end of the connection.
        method: As sent: b"POST".
        target: The request target as sent: path and query, undecoded.
        headers: Names in lower case, in wire order, repeated ones repeated.
        body: The whole body; empty until it has been read.
        body_limit_bytes: Set by the edge once the headers are in.
        room_bytes: What its body has taken of the room for bodies.
        expects_continue: Set by the edge: the sender waits for leave to send the body.
        route: Set by the edge where the target is a source that we know.
        refusal: The answer, where it is known before the body is; the body is then not kept.
        completed_s: `time.perf_counter()` when the last byte had been read.
    """

    __slots__ = (
        "body",
        "body_limit_bytes",
        "completed_s",
        "expects_continue",
        "headers",
        "method",
        "peer",
        "refusal",
        "room_bytes",
        "route",
        "target",
    )

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.method = b""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.body_limit_bytes = 0
        self.room_bytes = 0
        self.expects_continue = False
        self.route: Route | None = None
        self.refusal: Answer | None = None
        self.completed_s = 0.0
