"""The HTTP edge: finds the source, judges the headers, hands the delivery in, puts the outcome into words.

It turns away what can't be a delivery of a known source before the body is kept, and judges nothing that
needs a secret.
"""

from __future__ import annotations

import asyncio
import time

from webhook_shared import telemetry

from webhook_gateway import answers, metrics
from webhook_gateway.answers import Answer
from webhook_gateway.edge.addresses import Proxies
from webhook_gateway.edge.refusal_reports import RefusalReports
from webhook_gateway.edge.request import Request
from webhook_gateway.health import Health
from webhook_gateway.intake import Intake
from webhook_gateway.limits import Disbelief
from webhook_gateway.outcome import Accepted, Answered, Duplicate, Outcome, Refused, Unavailable
from webhook_gateway.routes import Route, Routes, is_webhook_path
from webhook_gateway.security_client import Arrival

HEALTH_PATH = b"/health/webhook"
LIVE_PATH = b"/health/live"
_HEALTH_PATHS = frozenset((HEALTH_PATH, LIVE_PATH))
# A content-length with more digits is no length.
MAX_LENGTH_DIGITS = 19
# Headers that mean nothing if they stand twice. Whether a security header may is security's to judge.
_ONCE = frozenset(
    (b"content-type", b"content-encoding", b"content-length", b"transfer-encoding", b"host", b"expect")
)
_SENDERS_FAULT = 400
_OUR_FAULT = 500
_ALIVE = answers.plain(200, b'{"status":"alive"}')
_GET_ONLY = answers.method_not_allowed(("GET",))


class Edge:
    """The handler of the HTTP server."""

    def __init__(
        self,
        routes: Routes,
        intake: Intake,
        health: Health,
        *,
        proxies: Proxies | None = None,
        disbelief: Disbelief | None = None,
        reports: RefusalReports | None = None,
    ) -> None:
        self._routes = routes
        self._intake = intake
        self._health = health
        self._proxies = proxies
        self._disbelief = disbelief
        self._reports = reports

    def opened(self, request: Request) -> Answer | None:
        """Judge target, method and headers.

        Returns:
            The answer, where it is known already; None, where the body may come.
        """
        if self._proxies is not None:
            request.peer = self._proxies.sender(request.peer, request.headers)
        path = request.target.partition(b"?")[0]
        route = self._routes.find(path)
        if route is None and path in _HEALTH_PATHS:
            # Never limited: whoever probes us may come from an address that strangers seem to have, too.
            return self._opened_health(request, path)
        if self._disbelief is not None and (wait_s := self._disbelief.wait_s(request.peer)):
            metrics.shed.labels("sender").inc()
            return answers.too_many(wait_s)
        if route is None:
            return self._opened_elsewhere(path)
        request.route = route
        request.body_limit_bytes = route.max_body_bytes
        cause = _fault_of(request, route)
        if cause is None:
            return None
        metrics.refusals.labels(route.tool, cause).inc()
        return answers.refused(Refused(cause, 0), route.not_allowed)

    def _opened_health(self, request: Request, path: bytes) -> Answer | None:
        if request.method != b"GET":
            return _GET_ONLY
        return _ALIVE if path == LIVE_PATH else None

    def _opened_elsewhere(self, path: bytes) -> Answer:
        if not is_webhook_path(path):
            return answers.NOT_FOUND
        metrics.refusals.labels(metrics.UNKNOWN_TOOL, "UNKNOWN_SOURCE").inc()
        # Before security has named its sources, this may well be one of them.
        return answers.NOT_FOUND if self._routes.known else answers.UNAVAILABLE

    def received(self, request: Request) -> asyncio.Future[Outcome] | asyncio.Future[Answer]:
        """Take a request whose headers were found good; the result is for `answer`."""
        route = request.route
        if route is None:
            return asyncio.ensure_future(self._health.answer())
        route.received.inc()
        if telemetry.tracing_is_on():
            return asyncio.ensure_future(self._traced(request, route))
        return self._intake.submit(_arrival(request, route, ""))

    async def _traced(self, request: Request, route: Route) -> Outcome:
        # A sender's own traceparent is not followed: whoever is outside does not decide what we record.
        with telemetry.span("webhook.receive", tool=route.tool, tenant=route.tenant) as span:
            outcome = await self._intake.submit(_arrival(request, route, telemetry.traceparent()))
            span.set_attribute("outcome", type(outcome).__name__.lower())
            return outcome

    def answer(self, request: Request, result: Outcome | Answer) -> Answer:
        """What to say to the sender."""
        route = request.route
        if route is None or isinstance(result, Answer):
            assert isinstance(result, Answer)
            return result
        metrics.request_duration.observe(time.perf_counter() - request.completed_s)
        if isinstance(result, Accepted):
            return route.answers.accepted(result.event_id, quarantined=result.quarantined)
        if isinstance(result, Duplicate):
            route.duplicates.inc()
            return route.answers.duplicate(result.first_event_id)
        if isinstance(result, Answered):
            return answers.handshake(result)
        if isinstance(result, Refused):
            metrics.refusals.labels(route.tool, result.cause).inc()
            answer = answers.refused(result, route.not_allowed)
        else:
            answer = answers.unavailable(result.retry_after_s)
        if answer.status == answers.UNAVAILABLE.status:
            route.failed.inc()
        if route.lost is not None and _is_lost(result, answer):
            route.lost.inc()
        return answer

    def answered(self, request: Request, answer: Answer) -> None:
        """Keep count of who sends what nobody believes, and of what was turned away here."""
        status = answer.status
        if request.refusal is not None and self._reports is not None:
            self._reports.note(request, status)
        if self._disbelief is None or status >= _OUR_FAULT or status == answers.TOO_MANY.status:
            return
        if status < _SENDERS_FAULT:
            # Who asks for our health has not proved anything.
            if request.route is not None:
                self._disbelief.believed(request.peer)
        elif self._proxies is None or not self._proxies.trusts(request.peer):
            self._disbelief.disbelieved(request.peer)


def _is_lost(result: Outcome, answer: Answer) -> bool:
    """Whether a sender that never sends again takes an event with it that might have been let in."""
    if isinstance(result, Unavailable):
        # It is in its stream; its sender alone does not know.
        return result.missing != "durability"
    return answer.status in {answers.UNAVAILABLE.status, answers.TOO_MANY.status}


def _arrival(request: Request, route: Route, traceparent: str) -> Arrival:
    return Arrival(
        tenant=route.tenant,
        tool=route.tool,
        method=request.method.decode("ascii"),
        query=request.target.partition(b"?")[2],
        headers=request.headers,
        body=request.body,
        peer=request.peer,
        received_ns=time.time_ns(),
        arrived_s=request.completed_s,
        traceparent=traceparent,
    )


def _fault_of(request: Request, route: Route) -> str | None:
    """The cause for which this head is refused, or None; notes what the connection must know."""
    told = _told(request.headers)
    if told is None:
        return "HEADER_MALFORMED"
    request.expects_continue = told.get(b"expect", b"").lower() == b"100-continue"
    if request.method not in route.methods:
        return "METHOD"
    if _length(told.get(b"content-length", b"0")) > route.max_body_bytes:
        return "BODY_TOO_LARGE"
    # What is signed is what was sent: a body that would have to be unpacked can't be verified as it came.
    if told.get(b"content-encoding", b"identity").lower() != b"identity":
        return "CONTENT_TYPE"
    content_type = told.get(b"content-type")
    if content_type is None:
        return "CONTENT_TYPE" if route.content_types and request.method == b"POST" else None
    return None if route.takes(content_type) else "CONTENT_TYPE"


def _told(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """What the headers say about the message itself; None if they contradict themselves."""
    told: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONCE:
            if name in told:
                return None
            told[name] = value
    return told if told.get(b"transfer-encoding", b"chunked").lower() == b"chunked" else None


def _length(digits: bytes) -> int:
    return int(digits) if len(digits) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS
