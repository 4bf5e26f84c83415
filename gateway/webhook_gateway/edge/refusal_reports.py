"""Tells security what the edge turned away by itself, so that operators find all refusals in one place.

A refusal costs a counter; once a second what was counted goes out, with one example for each route and cause.
"""

from __future__ import annotations

import time

import structlog
from webhook.security.v1.admission_pb2 import (
    REFUSAL_BODY_TOO_LARGE,
    REFUSAL_CONTENT_TYPE,
    REFUSAL_HEADER_MALFORMED,
    REFUSAL_METHOD,
    REFUSAL_UNKNOWN_SOURCE,
)
from webhook.security.v1.admission_service_pb2 import EdgeRefusal
from webhook_shared.errors import ServiceError

from webhook_gateway.edge.request import Request
from webhook_gateway.routes import is_webhook_path
from webhook_gateway.security_client import SecurityClient, described

log = structlog.get_logger()

MOST_TALLIES = 256

_CAUSES = {
    400: REFUSAL_HEADER_MALFORMED,
    404: REFUSAL_UNKNOWN_SOURCE,
    405: REFUSAL_METHOD,
    413: REFUSAL_BODY_TOO_LARGE,
    415: REFUSAL_CONTENT_TYPE,
    431: REFUSAL_HEADER_MALFORMED,
}
"""What an early answer means, by its status; others are no refusal of the request itself."""

_Key = tuple[str, str, int]


class RefusalReports:
    """Counts early refusals and reports them.

    Args:
        security: Hears of them.
    """

    def __init__(self, security: SecurityClient) -> None:
        self._security = security
        self._tallies: dict[_Key, EdgeRefusal] = {}

    def note(self, request: Request, status: int) -> None:
        """A request was answered before its body was read."""
        cause = _CAUSES.get(status)
        route = request.route
        if cause is None or (route is None and not is_webhook_path(request.target.partition(b"?")[0])):
            return
        # Routes that do not exist are one: their names are made up by whoever asks.
        key = (route.tenant, route.tool, cause) if route else ("", "", cause)
        tally = self._tallies.get(key)
        if tally is None:
            if len(self._tallies) >= MOST_TALLIES:
                return
            tally = self._tallies[key] = EdgeRefusal(cause=cause)
            example = tally.example
            example.tenant, example.tool = key[:2]
            described(example, request.headers, request.peer, time.time_ns())
        tally.count += 1

    async def report(self) -> None:
        """Report what was counted; what can't be reported now is counted on."""
        if not self._tallies:
            return
        tallies, self._tallies = self._tallies, {}
        try:
            await self._security.report(tallies.values())
        except ServiceError as error:
            log.warning("refusals.not_reported", reason=error.reason)
            for key, tally in tallies.items():
                tally.count += self._tallies[key].count if key in self._tallies else 0
            self._tallies = {**self._tallies, **tallies}
