"""Judges deliveries: believe or refuse, read, name, seal.

Nothing here waits: secrets, limits and tenant keys are at hand, so a batch is pure computing. A batch goes
through step by step, all deliveries through one step before any goes to the next: what a step needs (the
code, the tables of the compressor) then stays in the processor's cache, which makes it a third faster.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
import uuid_utils
from prometheus_client import Counter as Metric
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.security.v1.admission_pb2 import (
    OUTCOME_ADMITTED,
    OUTCOME_ANSWERED,
    OUTCOME_QUARANTINED,
    OUTCOME_REFUSED,
    Delivery,
    Outcome,
    Verdict,
)
from webhook.security.v1.admission_pb2 import Refusal as RefusalCause
from webhook_shared import telemetry
from webhook_shared.envelope import Keyring

from webhook_security import metrics, payloads
from webhook_security.duplicates import body_digest, dedup_key
from webhook_security.fields import text_at, time_at
from webhook_security.refusals import Refusal
from webhook_security.registry import Registry, Source
from webhook_security.rejections import Rejections
from webhook_security.verify import Proof, verify

log = structlog.get_logger()

SCHEMA = 1
PRODUCER_SCHEME = "api-key"
UNVERIFIED_SCHEME = "none"
UNKNOWN_TYPE = "unknown"
OUR_FAULT_RETRY_S: Mapping[Refusal, int] = {Refusal.SECRET_UNAVAILABLE: 30, Refusal.INTERNAL: 1}

_LONGEST_KEPT_HEADER_BYTES = 1024
_NANOS_PER_S = 1_000_000_000
_UNKNOWN_REFUSED = metrics.admissions.labels(metrics.UNKNOWN, "refused")


_PORTION_DELIVERIES = 64
_PORTION_BYTES = 2 * 2**20
"""A parsed document takes about ten times the room of its body, and those of a portion live at once."""


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.label)
        self.refusal = refusal


class Case:
    """One delivery on its way through the steps.

    Attributes:
        delivery: As it came.
        verdict: What is said of it; filled in here.
        source: What it is judged by; None where there is none.
        is_producer: It came through our own RPC door, from somebody who has proved who it is.
    """

    __slots__ = (
        "content_type",
        "delivery",
        "document",
        "event",
        "headers",
        "is_producer",
        "proof",
        "source",
        "verdict",
    )

    content_type: str
    document: Any
    event: WebhookEvent
    headers: dict[str, bytes]
    proof: Proof

    def __init__(
        self, delivery: Delivery, verdict: Verdict, source: Source | None, *, is_producer: bool
    ) -> None:
        self.delivery = delivery
        self.verdict = verdict
        self.source = source
        self.is_producer = is_producer


class Admission:
    """The judge.

    Args:
        registry: The sources.
        keyring: Seals; the tenants' keys must be held.
        rejections: Hears of what is not let in.
        verifying: False lets everything in, marked as unverified.
        clock: Unix seconds.
    """

    def __init__(
        self,
        registry: Registry,
        keyring: Keyring,
        rejections: Rejections,
        *,
        verifying: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._keyring = keyring
        self._rejections = rejections
        self._verifying = verifying
        self._clock = clock
        self._happened: list[Metric] = []
        self._steps: Final = (self._prove, self._read, self._name, self._seal)

    def case(self, delivery: Delivery, verdict: Verdict) -> Case:
        """A delivery with the source that it is judged by.

        Args:
            delivery: As it came.
            verdict: Empty; `judge` fills it in.
        """
        is_producer = delivery.HasField("producer")
        find = self._registry.for_producer if is_producer else self._registry.find
        return Case(delivery, verdict, find(delivery.tenant, delivery.tool), is_producer=is_producer)

    def judge(self, cases: Sequence[Case]) -> None:
        """Fill in every verdict; a delivery that can't be judged never harms its neighbours."""
        untraced = []
        for case in cases:
            if telemetry.is_sampled(case.delivery.traceparent):
                self._traced(case)
            else:
                untraced.append(case)
        for portion in _portions(untraced):
            self._step_by_step(portion)
        for metric, count in Counter(self._happened).items():
            metric.inc(count)
        self._happened.clear()

    def _traced(self, case: Case) -> None:
        with telemetry.span("security.admit", case.delivery.traceparent, tool=case.delivery.tool) as span:
            self._step_by_step([case])
            span.set_attribute("outcome", Outcome.Name(case.verdict.outcome))

    def _step_by_step(self, cases: Sequence[Case]) -> None:
        for step in self._steps:
            cases = [case for case in cases if self._goes_on(step, case)]

    def _goes_on(self, step: Callable[[Case], bool], case: Case) -> bool:
        try:
            return step(case)
        except _Refused as refused:
            refusal = refused.refusal
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this delivery's alone
            # Its text could repeat what came in, so only its kind and place are told.
            log.error("delivery.not_judged", error=type(error).__name__, where=_place(error))
            refusal = Refusal.INTERNAL
        self._refuse(case, refusal)
        return False

    def _refuse(self, case: Case, refusal: Refusal) -> None:
        delivery, verdict = case.delivery, case.verdict
        self._rejections.refused(
            refusal, delivery.tenant, delivery.tool, delivery.peer_address, delivery.body
        )
        self._happened.append(case.source.outcomes["refused"] if case.source else _UNKNOWN_REFUSED)
        verdict.Clear()
        verdict.outcome = OUTCOME_REFUSED
        verdict.refusal = RefusalCause.ValueType(refusal)
        if refusal in OUR_FAULT_RETRY_S:
            verdict.retry_after.seconds = OUR_FAULT_RETRY_S[refusal]

    def _prove(self, case: Case) -> bool:
        """From the route to the proof: nothing of the body is looked at but its bytes."""
        delivery, source = case.delivery, case.source
        if source is None:
            raise _Refused(Refusal.UNKNOWN_SOURCE)
        if delivery.method != "POST":
            raise _Refused(Refusal.METHOD)
        body = delivery.body
        if len(body) > source.max_body_bytes:
            raise _Refused(Refusal.BODY_TOO_LARGE)
        headers = case.headers = _headers(delivery, source)
        case.content_type = _content_type(headers, source)
        case.proof = self._proof(case, source, body)
        if not body:
            raise _Refused(Refusal.BODY_EMPTY)
        return True

    def _proof(self, case: Case, source: Source, body: bytes) -> Proof:
        if case.is_producer:
            return Proof(PRODUCER_SCHEME, case.delivery.producer.key_id, None)
        if not self._verifying:
            return Proof(UNVERIFIED_SCHEME, "", None)
        found = verify(source.checks, case.headers, body, self._clock())
        if isinstance(found, Refusal):
            raise _Refused(found)
        self._happened.append(source.uses[found.key_id])
        if found.skew_s is not None:
            source.clock_skew.observe(found.skew_s)
        return found

    def _read(self, case: Case) -> bool:
        """The body becomes a document, or the answer to a handshake; what can't be read is kept aside."""
        source = case.source
        assert source is not None
        body = case.delivery.body
        form_field = source.row.form_field if case.content_type == payloads.FORM else ""
        outcome = OUTCOME_ADMITTED
        try:
            document = payloads.parse(body, source.routing_keys, form_field)
            if source.row.handshake and self._answered(case, source, document):
                return False
        except payloads.Unusable as unusable:
            self._rejections.quarantined(
                unusable.reason, source.tenant, source.tool, case.delivery.peer_address, body
            )
            document, outcome = None, OUTCOME_QUARANTINED
        case.document = document
        case.verdict.outcome = outcome
        self._happened.append(source.outcomes["admitted" if document is not None else "quarantined"])
        return True

    def _answered(self, case: Case, source: Source, document: Any) -> bool:
        handshake = source.row.handshake
        if not handshake or text_at((handshake.when,), case.headers, document) != handshake.equals:
            return False
        # `text_at` takes no more than 256 characters, which are at most 1 KiB.
        reply = text_at((handshake.reply,), case.headers, document)
        if not reply:
            raise payloads.Unusable("handshake_without_reply")
        case.verdict.outcome = OUTCOME_ANSWERED
        answer = case.verdict.answer
        answer.http_status, answer.content_type, answer.body = 200, "text/plain", reply.encode()
        self._happened.append(source.outcomes["answered"])
        return True

    def _name(self, case: Case) -> bool:
        """Make the event of a delivery, and say what makes it the same as another."""
        source = case.source
        assert source is not None
        delivery, headers, document, row = case.delivery, case.headers, case.document, source.row
        given_id, given_type = "", ""
        if case.is_producer:
            given_id, given_type = delivery.producer.delivery_id, delivery.producer.type
        delivery_id = given_id or text_at(row.delivery.id, headers, document) or body_digest(delivery.body)
        event = case.event = WebhookEvent(
            id=str(uuid_utils.uuid7()),
            tenant=source.tenant,
            tool=source.tool,
            type=given_type or text_at(row.event.type, headers, document) or UNKNOWN_TYPE,
            action=text_at(row.event.action, headers, document),
            delivery_id=delivery_id,
            payload=delivery.body,
            content_type=case.content_type,
            traceparent=delivery.traceparent,
        )
        # Sub-messages are filled in place: to hand them to the constructor costs twice as much.
        kept = event.headers
        for name in row.keep_headers:
            value = headers.get(name)
            if value is not None and len(value) <= _LONGEST_KEPT_HEADER_BYTES:
                kept[name] = value.decode("latin-1")
        self._date(case, source)
        trust, proof = event.trust, case.proof
        trust.scheme, trust.key_id = proof.scheme, proof.key_id
        if proof.skew_s is not None:
            _set_seconds(trust.clock_skew, proof.skew_s)
        verdict = case.verdict
        scope = text_at(row.delivery.scope, headers, document)
        verdict.dedup_key = dedup_key(source.tenant, source.tool, scope, delivery_id)
        verdict.dedup_window.seconds = source.window_s
        verdict.occurrences_allowed = source.occurrences
        case.document = None
        return True

    def _date(self, case: Case, source: Source) -> None:
        event, row = case.event, source.row.event
        if case.delivery.HasField("received_time"):
            event.received_time.CopyFrom(case.delivery.received_time)
        else:
            _set_seconds(event.received_time, self._clock())
        occurred = time_at(row.occurred, row.occurred_unit, case.headers, case.document)
        if occurred is not None:
            _set_seconds(event.occurred_time, occurred)

    def _seal(self, case: Case) -> bool:
        event, source = case.event, case.source
        assert source is not None
        sealed = case.verdict.event
        sealed.sealed = self._keyring.seal(
            source.tenant, event.SerializeToString(), "event", event.id, dictionary=source.kind
        )
        sealed.id, sealed.tenant, sealed.tool, sealed.type = event.id, event.tenant, event.tool, event.type
        sealed.received_time.CopyFrom(event.received_time)
        sealed.schema = SCHEMA
        sealed.traceparent = event.traceparent
        return True


def _portions(cases: Sequence[Case]) -> Iterator[list[Case]]:
    portion: list[Case] = []
    size_bytes = 0
    for case in cases:
        portion.append(case)
        size_bytes += len(case.delivery.body)
        if len(portion) == _PORTION_DELIVERIES or size_bytes >= _PORTION_BYTES:
            yield portion
            portion, size_bytes = [], 0
    if portion:
        yield portion


def _headers(delivery: Delivery, source: Source) -> dict[str, bytes]:
    wanted, single = source.wanted, source.single
    found: dict[str, bytes] = {}
    for header in delivery.headers:
        name = header.name
        if name in wanted:
            if name in found:
                if name in single:
                    raise _Refused(Refusal.HEADER_MALFORMED)
                continue
            found[name] = header.value
    return found


def _content_type(headers: Mapping[str, bytes], source: Source) -> str:
    if headers.get("content-encoding", b"identity").strip().lower() != b"identity":
        raise _Refused(Refusal.CONTENT_TYPE)
    written = headers.get("content-type", b"")
    content_type = source.content_types.get(written)
    if content_type is None:
        media_type = written.partition(b";")[0].strip().lower()
        content_type = source.content_types.get(media_type)
        if content_type is None:
            raise _Refused(Refusal.CONTENT_TYPE)
    return content_type


def _set_seconds(target: Any, seconds: float) -> None:
    # The same sign for both parts, as Duration wants it; times before 1970 do not get here.
    whole = int(seconds)
    target.seconds = whole
    target.nanos = int((seconds - whole) * _NANOS_PER_S)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else ""
