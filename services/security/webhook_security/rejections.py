"""Tells operators what was not let in, without repeating any of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import structlog

from webhook_security import metrics
from webhook_security.refusals import Refusal
from webhook_security.settings import ROUTE_NAME

log = structlog.get_logger()

QUIET_S = 1.0
"""A cause at one route is written at most this often, seconds; what came between is counted."""

_REMEMBERED = 1024
_DIGEST_CHARACTERS = 12
_VIOLATIONS = {refusal: metrics.violations.labels(refusal.label) for refusal in Refusal}


class Rejections:
    """Counts every refusal and logs as many as a person can read.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: dict[tuple[str, str, str], tuple[float, int]] = {}

    def refused(self, refusal: Refusal, tenant: str, tool: str, peer_address: str, body: bytes) -> None:
        """A delivery was not let in.

        Args:
            refusal: Why.
            tenant: From the route, as it came.
            tool: From the route, as it came.
            peer_address: The sender's.
            body: Only its digest is told.
        """
        _VIOLATIONS[refusal].inc()
        self._tell("delivery.refused", refusal.label, (tenant, tool), peer_address, body)

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


def _shown(name: str) -> str:
    return name if not name or ROUTE_NAME.fullmatch(name) else "(no name)"
