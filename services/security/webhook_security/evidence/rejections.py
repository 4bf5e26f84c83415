"""What was not let in: counted in full, logged a little, kept as evidence within bounds.

A flood of forgeries costs a counter each: of each cause at each source only so many per second are kept, and
those are sealed and written in the background.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import structlog
import uuid_utils
from webhook.security.v1.admission_pb2 import Delivery
from webhook.security.v1.admission_pb2 import Refusal as RefusalCause
from webhook.security.v1.rejection_pb2 import Rejection
from webhook_shared.journal import Journal

from webhook_security import metrics
from webhook_security.evidence.audit import Audit
from webhook_security.evidence.rejection_store import NOWHERE, PROVED, Kept, RejectionStore, Room
from webhook_security.refusals import Refusal
from webhook_security.registry.sources import Source
from webhook_security.settings import ROUTE_NAME, RejectionsSection

log = structlog.get_logger()

QUIET_S = 1.0
"""A cause at one route is written at most this often, seconds; what came between is counted."""

RETRYABLE = frozenset(
    {
        Refusal.SIGNATURE_MISSING,
        Refusal.SIGNATURE_INVALID,
        Refusal.TIMESTAMP_EXPIRED,
        Refusal.TIMESTAMP_AHEAD,
        Refusal.CONTENT_TYPE,
        Refusal.SECRET_UNAVAILABLE,
        Refusal.ADDRESS,
        Refusal.EVENT_TYPE,
        Refusal.RATE,
        Refusal.INTERNAL,
    }
)
"""Causes that a change on our side may mend: for these the delivery itself is kept."""

GATHERED_S = 0.2
MOST_WAITING = 1024
MOST_WAITING_BYTES = 16 * 2**20

_LONGEST_HEADER_BYTES = 1024
_NOT_KEPT = frozenset({"cookie", "proxy-authorization"})
"""No scheme verifies by these, so that judging again needs none of them."""
_REMEMBERED = 1024
_DIGEST_CHARACTERS = 12
_VIOLATIONS = {refusal: metrics.violations.labels(refusal.label) for refusal in Refusal}


class Samples:
    """Samples what is refused and has it kept.

    Args:
        store: Where.
        settings: How many per second.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        store: RejectionStore,
        settings: RejectionsSection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._per_second, self._clock = store, settings.per_second, clock
        self._taken: dict[tuple[Room, Refusal], tuple[int, int]] = {}
        self.journal: Journal[Kept] = Journal(
            "rejections",
            store.keep,
            most=MOST_WAITING,
            most_bytes=MOST_WAITING_BYTES,
            every_s=GATHERED_S,
            lost=metrics.rejections_dropped.inc,
        )

    def take(
        self, refusal: Refusal, delivery: Delivery, source: Source | None, *, has_body: bool = True
    ) -> None:
        """Keep a refused delivery, unless enough of its kind were kept this second.

        Producers of our own are told what is wrong and can send again: nothing of theirs is kept.
        """
        if delivery.HasField("producer"):
            return
        room = Room(source.tenant, source.tool, refusal in PROVED) if source else NOWHERE
        second = int(self._clock())
        key = (room, refusal)
        at, count = self._taken.get(key, (second, 0))
        if at == second and count >= self._per_second:
            return
        self._taken[key] = (second, count + 1 if at == second else 1)
        rejection_id = str(uuid_utils.uuid7())
        told = _facts(rejection_id, refusal, delivery, source)
        if has_body:
            told.body_sha256 = hashlib.sha256(delivery.body).hexdigest()
        facts = told.SerializeToString()
        whole = b""
        if source and has_body and refusal in RETRYABLE:
            whole = self._whole(delivery)
        received_ms = delivery.received_time.ToMilliseconds() or int(time.time() * 1000)
        entry = Kept(room, rejection_id, refusal, received_ms, facts, whole)
        self.journal.put(entry, len(facts) + len(whole))

    def _whole(self, delivery: Delivery) -> bytes:
        if len(delivery.body) > self._store.largest_delivery_bytes:
            return b""
        # Serialised at once: a message would keep the whole batch alive that it came with.
        if not any(header.name in _NOT_KEPT for header in delivery.headers):
            return delivery.SerializeToString()
        kept = Delivery()
        kept.CopyFrom(delivery)
        del kept.headers[:]
        kept.headers.extend(header for header in delivery.headers if header.name not in _NOT_KEPT)
        return kept.SerializeToString()


class Rejections:
    """Counts every refusal, logs as many as a person can read, and has some kept.

    Args:
        samples: Keeps them; None keeps nothing.
        audit: Hears of each.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        samples: Samples | None = None,
        audit: Audit | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._samples, self._audit, self._clock = samples, audit, clock
        self._written: dict[tuple[str, str, str], tuple[float, int]] = {}

    def refused(self, refusal: Refusal, delivery: Delivery, source: Source | None) -> None:
        """A delivery was not let in.

        Args:
            refusal: Why.
            delivery: As it came; nothing of its body is told but its digest.
            source: What it was judged by; None where there is none.
        """
        _VIOLATIONS[refusal].inc()
        if self._audit:
            self._audit.denied(refusal, source, delivery.peer_address)
        if self._samples:
            self._samples.take(refusal, delivery, source)
        route = (delivery.tenant, delivery.tool)
        self._tell("delivery.refused", refusal.label, route, delivery.peer_address, delivery.body)

    def reported(self, refusal: Refusal, example: Delivery, source: Source | None, count: int) -> None:
        """The edge, which counts and logs them itself, turned requests away before their bodies came.

        Args:
            refusal: Why.
            example: One of them, without its body.
            source: What it was meant for; None where there is none.
            count: How many.
        """
        if self._audit:
            self._audit.denied(refusal, source, example.peer_address, count)
        if self._samples:
            self._samples.take(refusal, example, source, has_body=False)

    def quarantined(self, reason: str, tenant: str, tool: str, peer_address: str, body: bytes) -> None:
        """A delivery was believed but can't be read."""
        self._tell("delivery.quarantined", reason, (tenant, tool), peer_address, body)

    def _tell(self, event: str, cause: str, route: tuple[str, str], peer_address: str, body: bytes) -> None:
        tenant, tool = map(_shown, route)
        now = self._clock()
        key = (cause, tenant, tool)
        last, between = self._written.get(key, (float("-inf"), 0))
        if now - last < QUIET_S:
            self._written[key] = (last, between + 1)
            return
        if len(self._written) >= _REMEMBERED:
            # Somebody makes names up; to forget what was written costs a few lines more.
            self._written.clear()
        self._written[key] = (now, 0)
        log.warning(
            event,
            cause=cause,
            tenant=tenant,
            tool=tool,
            peer=peer_address,
            size_bytes=len(body),
            body_sha256=hashlib.sha256(body).hexdigest()[:_DIGEST_CHARACTERS],
            unwritten=between,
        )


def _facts(rejection_id: str, refusal: Refusal, delivery: Delivery, source: Source | None) -> Rejection:
    headers = {header.name: header.value for header in reversed(delivery.headers)}
    kept = source.row.keep_headers if source else ()
    return Rejection(
        rejection_id=rejection_id,
        tenant=source.tenant if source else NOWHERE.tenant,
        tool=_shown(delivery.tool),
        cause=RefusalCause.ValueType(refusal),
        peer_address=delivery.peer_address,
        received_time=delivery.received_time,
        body_bytes=len(delivery.body),
        headers={name: _text(headers[name]) for name in kept if name in headers},
        content_type=_text(headers.get("content-type", b"")),
    )


def _text(value: bytes) -> str:
    return value[:_LONGEST_HEADER_BYTES].decode("latin-1")


def _shown(name: str) -> str:
    return name if not name or ROUTE_NAME.fullmatch(name) else "(no name)"
