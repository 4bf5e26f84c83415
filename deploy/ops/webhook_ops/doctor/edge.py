"""What the HTTP edge does with hostile requests, and whether it tells strangers anything."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterable, Sequence
from http import HTTPStatus

from webhook_shared.rpc.tls import stays_on_this_machine

from webhook_ops.doctor.abuse import BODY, Case, Forger, cases
from webhook_ops.doctor.finding import Finding, failed, passed, skipped, warned
from webhook_ops.doctor.raw_http import Answer, Edge, NoAnswerError, head

AREA = "edge"

AT_ONCE = 8
ANSWER_WITHIN_S = 5.0
# More than the longest that the gateway gives by default: five seconds for the head, ten for the body.
SLOW_WITHIN_S = 25.0
TRICKLE_S = 0.4
CHUNK = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
# The largest body that any catalogued sender may send, and some more.
ENDLESS_CHUNKS = 30 * 16
SKEW_S = 2.0

_OURS = "look at the gateway's log for that moment; a 5xx or a silence here is a fault of ours to report"
_PROXY = "refused, but not by the gateway: see what the proxy in front of it does with such requests"


async def examine(edge: Edge, forger: Forger, *, quick: bool) -> list[Finding]:
    """Send everything that must be refused.

    Args:
        edge: Whom.
        forger: What.
        quick: Leave out what takes as long as the edge bears it.
    """
    if trouble := await _not_examinable(edge, forger):
        return [*_transport(edge), trouble]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Finding:
        async with gate:
            return await _tried(edge, case)

    at_once = asyncio.gather(*(one(case) for case in cases(forger)))
    slow = () if quick else (_slow_head(edge, forger), _slow_body(edge, forger))
    patient = asyncio.gather(_endless(edge, forger), *slow)
    return [*_transport(edge), *await at_once, *await patient, await _silence(edge, forger)]


async def _not_examinable(edge: Edge, forger: Forger) -> Finding | None:
    """Why nothing can be learned here, if so."""
    try:
        answer = await edge.exchange(forger.request(forger.headers().items()), within_s=ANSWER_WITHIN_S)
    except (NoAnswerError, TimeoutError) as error:
        seen = str(error) or f"no answer within {ANSWER_WITHIN_S:g} s"
        return failed(AREA, "answers", seen, "set WEBHOOK_HTTP_URL, or see the gateway's log")
    if answer.status == HTTPStatus.NOT_FOUND:
        return failed(
            AREA,
            "source",
            f"404: there is no {forger.path.decode()}",
            "name a source of this system with --tool",
        )
    return None


async def clock(edge: Edge) -> Finding:
    """How far the gateway's clock is from ours; signed times bear five minutes."""
    try:
        answer = await edge.exchange(
            head(b"/health/live", (("Connection", "close"),), host=edge.authority, method="GET"),
            within_s=ANSWER_WITHIN_S,
        )
        told = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (NoAnswerError, TimeoutError, KeyError, ValueError):
        return skipped("clock", "gateway", "it told no time")
    # The header has whole seconds.
    return skew("gateway", told + 0.5 - time.time(), within_s=SKEW_S)


def skew(whose: str, seconds: float, *, within_s: float) -> Finding:
    """A clock beside ours."""
    seen = f"{seconds:+.1f} s beside this machine"
    if abs(seconds) <= within_s:
        return passed("clock", whose, seen)
    return failed(
        "clock", whose, seen, "have both follow NTP: signatures with a time are refused beyond five minutes"
    )


def _transport(edge: Edge) -> Sequence[Finding]:
    if edge.url.startswith("https://"):
        return [passed(AREA, "transport", "https")]
    if stays_on_this_machine(edge.authority if ":" in edge.authority else f"{edge.authority}:80"):
        return [passed(AREA, "transport", "plain HTTP on this machine")]
    return [
        failed(
            AREA,
            "transport",
            "plain HTTP over a network",
            "set WEBHOOK_HTTP_TLS_CERT_FILE and WEBHOOK_HTTP_TLS_KEY_FILE, or end TLS in a proxy",
        )
    ]


async def _tried(edge: Edge, case: Case) -> Finding:
    try:
        answer = await edge.exchange(case.request, within_s=ANSWER_WITHIN_S)
    except NoAnswerError as error:
        return failed(AREA, case.name, f"{error}; due was {case.status}", _OURS)
    except TimeoutError:
        return failed(
            AREA, case.name, f"no answer within {ANSWER_WITHIN_S:g} s; due was {case.status}", _OURS
        )
    return _judged(case, answer)


def _judged(case: Case, answer: Answer) -> Finding:
    status = answer.status
    seen = f"{status} in {answer.seconds * 1000:.0f} ms"
    if status == case.status:
        return passed(AREA, case.name, seen)
    due = f"{seen}; due was {case.status}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return skipped(AREA, case.name, due, "the limit for unbelieved requests came first: try again later")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return failed(AREA, case.name, due, "the source may have no secret, or a service is away: see below")
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return warned(AREA, case.name, due, _PROXY)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return failed(AREA, case.name, f"{due}: it was ACCEPTED", "is enable_signature_verification off?")
    return failed(AREA, case.name, due, _OURS)


async def _slow(edge: Edge, name: str, parts: AsyncIterable[bytes]) -> Finding:
    started_s = time.perf_counter()
    try:
        answer = await edge.stream(parts, within_s=SLOW_WITHIN_S)
    except NoAnswerError:
        return passed(AREA, name, f"closed after {time.perf_counter() - started_s:.1f} s")
    except TimeoutError:
        return failed(
            AREA,
            name,
            f"still open after {SLOW_WITHIN_S:g} s",
            "lower webhook.gateway.header_timeout and body_timeout, and the same of a proxy in front",
        )
    seen = f"{answer.status} after {answer.seconds:.1f} s"
    if answer.status < HTTPStatus.BAD_REQUEST:
        return failed(AREA, name, seen, _OURS)
    return passed(AREA, name, seen)


async def _slow_head(edge: Edge, forger: Forger) -> Finding:
    begun = head(forger.path, (), host=edge.authority)[: -len(b"\r\n\r\n")]
    return await _slow(edge, "slow head", _trickle(begun))


async def _slow_body(edge: Edge, forger: Forger) -> Finding:
    begun = forger.framed(("Content-Length", "100000"), body=b"")
    return await _slow(edge, "slow body", _trickle(begun))


async def _trickle(begun: bytes) -> AsyncIterable[bytes]:
    yield begun
    while True:
        await asyncio.sleep(TRICKLE_S)
        yield b"x"


async def _endless(edge: Edge, forger: Forger) -> Finding:
    """A body without an announced length that goes on and on: refused while it comes, never cut short."""

    async def parts() -> AsyncIterable[bytes]:
        yield forger.framed(("Transfer-Encoding", "chunked"), body=b"")
        for _ in range(ENDLESS_CHUNKS):
            yield CHUNK

    case = Case("endless body in chunks", 413, b"")
    try:
        answer = await edge.stream(parts(), within_s=SLOW_WITHIN_S)
    except (NoAnswerError, TimeoutError) as error:
        seen = str(error) or f"no answer within {SLOW_WITHIN_S:g} s"
        return failed(AREA, case.name, f"{seen}; due was {case.status}", _OURS)
    return _judged(case, answer)


async def _silence(edge: Edge, forger: Forger) -> Finding:
    """Whether refusals tell a prober why."""
    name = "refusals tell nobody why"
    forged = forger.headers()
    unsigned = {key: value for key, value in forged.items() if key != forger.signature}
    try:
        answers = [
            await edge.exchange(forger.request(headers.items(), BODY), within_s=ANSWER_WITHIN_S)
            for headers in (forged, unsigned)
        ]
    except (NoAnswerError, TimeoutError):
        return skipped(AREA, name, "no answer to compare")
    if len({(answer.status, answer.body) for answer in answers}) == 1:
        return passed(AREA, name, "a missing and a wrong signature are answered alike")
    return warned(AREA, name, "a missing and a wrong signature are answered differently", _PROXY)
