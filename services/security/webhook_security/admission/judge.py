"""Judges deliveries: believe or refuse, read, name, seal.

Nothing here waits: secrets, limits and tenant keys are at hand, so a batch is pure computing. A batch goes
through step by step, all deliveries through one step before any goes to the next: what a step needs (the
code, the tables of the compressor) then stays in the processor's cache, which makes it a third faster.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import Counter as Metric
from webhook.event.v1.event_pb2 import (
    ADDRESS_VERDICT_UNLISTED,
    ADDRESS_VERDICT_UNSPECIFIED,
    WebhookEvent,
)
from webhook.security.v1.admission_pb2 import (
    OUTCOME_ADMITTED,
    OUTCOME_ANSWERED,
    OUTCOME_DUPLICATE,
    OUTCOME_QUARANTINED,
    OUTCOME_REFUSED,
    Delivery,
    Outcome,
    Verdict,
)
from webhook.security.v1.admission_pb2 import Refusal as RefusalCause
from webhook.security.v1.admission_service_pb2 import EdgeRefusal
from webhook_shared import telemetry
from webhook_shared.compression import QUICK_LEVEL
from webhook_shared.dictionaries.samples import Samples
from webhook_shared.rpc.wire import before
from webhook_shared.sealing.envelope import Keyring

from webhook_security import metrics
from webhook_security.admission.naming import name, set_seconds
from webhook_security.case import Again, Case
from webhook_security.duplicates.known import KnownDuplicates
from webhook_security.evidence.rejections import Rejections
from webhook_security.limits.addresses import Addresses
from webhook_security.payloads.fields import text_at
from webhook_security.payloads.masking import masked
from webhook_security.payloads.reader import FORM, Unusable
from webhook_security.refusals import Refusal
from webhook_security.registry.sources import Registry, Source
from webhook_security.secrets.uses import SecretUse
from webhook_security.verification.handshakes import Reply
from webhook_security.verification.verify import Proof, verify

log = structlog.get_logger()

SCHEMA = 1
PRODUCER_SCHEME = "api-key"
UNVERIFIED_SCHEME = "none"
OUR_FAULT_RETRY_S: Mapping[Refusal, int] = {Refusal.SECRET_UNAVAILABLE: 30, Refusal.INTERNAL: 1}

_UNKNOWN_REFUSED = metrics.admissions.labels(metrics.UNKNOWN, "refused")


_PORTION_DELIVERIES = 64
_PORTION_BYTES = 2 * 2**20
"""The events of a portion live at once."""


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.label)
        self.refusal = refusal


Step: TypeAlias = Callable[[Case], bool]
"""Part of judging; False where the verdict is filled in already."""


class Admission:
    """The judge.

    Args:
        registry: The sources.
        keyring: Seals; the tenants' keys must be held.
        rejections: Hears of what is not let in.
        verifying: False lets everything in, marked as unverified.
        addresses: The allow-lists of the sources that have one.
        known: Recognises duplicates before they are sealed; None leaves them to who publishes.
        samples: Get some of what is sealed, to train dictionaries on; None where nothing is trained.
        clock: Unix seconds.
    """

    def __init__(
        self,
        registry: Registry,
        keyring: Keyring,
        rejections: Rejections,
        *,
        verifying: bool = True,
        addresses: Addresses | None = None,
        known: KnownDuplicates | None = None,
        samples: Samples | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._keyring = keyring
        self._rejections = rejections
        self._verifying = verifying
        self._addresses = addresses
        self._samples = samples
        self._known = known
        self._clock = clock
        self._happened: list[Metric | SecretUse] = []
        self._held: list[Case] = []
        self._all: Final[Sequence[Step]] = (self._read, self._name, self._seal)
        looked_at: Final[Sequence[Step]] = (self._read, self._name, self._is_new, self._seal)
        self._steps: Final = self._all if known is None else looked_at

    def case(self, delivery: Delivery, verdict: Verdict, again: Again | None = None) -> Case:
        """A delivery with the source that it is judged by.

        Args:
            delivery: As it came.
            verdict: Empty; `judge` fills it in.
            again: Set where it was refused before: it is not counted as refused once more.
        """
        is_producer = delivery.HasField("producer")
        find = self._registry.for_producer if is_producer else self._registry.find
        source = find(delivery.tenant, delivery.tool)
        return Case(delivery, verdict, source, is_producer=is_producer, again=again)

    def reported(self, refusal: EdgeRefusal) -> None:
        """The edge turned requests away before their bodies came."""
        example = refusal.example
        source = self._registry.find(example.tenant, example.tool)
        self._rejections.reported(Refusal(refusal.cause), example, source, refusal.count)

    def judge(self, cases: Sequence[Case]) -> None:
        """Fill in every verdict; a delivery that can't be judged never harms its neighbours."""
        self._take(self.prove(cases), self._all)

    def prove(self, cases: Sequence[Case]) -> list[Case]:
        """Refuse what can't be believed; what is left is for `conclude`, or for `refuse`."""
        believed = []
        for case in cases:
            if telemetry.is_sampled(case.delivery.traceparent):
                case.traced_from_ns = time.time_ns()
            if self._goes_on(self._prove, case):
                believed.append(case)
            elif case.traced_from_ns:
                self._trace(case)
        return believed

    def refuse(self, case: Case, refusal: Refusal, retry_after_s: float) -> None:
        """Let a proved delivery in no further.

        Args:
            case: It.
            refusal: Why.
            retry_after_s: When to come again.
        """
        self._refuse(case, refusal)
        set_seconds(case.verdict.retry_after, retry_after_s)
        if case.traced_from_ns:
            self._trace(case)

    def conclude(self, cases: Sequence[Case]) -> list[Case]:
        """Read, name and seal what has been proved, and fill in the verdicts.

        Returns:
            What may be a duplicate, not sealed yet: for `settle`.
        """
        self._take(cases, self._steps)
        held, self._held = self._held, []
        if self._known is None or len(held) >= self._known.worth:
            return held
        self._take(held, (self._seal,))
        return []

    async def settle(self, held: Sequence[Case]) -> None:
        """Find out whether what `conclude` gave back is known already; seal what is not."""
        assert self._known is not None
        asked = [(case.event.tenant, case.event.tool, case.verdict) for case in held]
        unknown = []
        for case, first in zip(held, await self._known.look_up(asked), strict=True):
            if first:
                self._repeat(case, first)
            else:
                unknown.append(case)
        self._take(unknown, (self._seal,))

    def _take(self, cases: Sequence[Case], steps: Sequence[Step]) -> None:
        untraced = []
        for case in cases:
            if case.traced_from_ns:
                self._step_by_step((case,), steps)
                if case not in self._held:
                    self._trace(case)
            else:
                untraced.append(case)
        for portion in _portions(untraced):
            self._step_by_step(portion, steps)
        for metric, count in Counter(self._happened).items():
            metric.inc(count)
        self._happened.clear()

    def _trace(self, case: Case) -> None:
        with telemetry.span(
            "security.admit", case.delivery.traceparent, start_ns=case.traced_from_ns, tool=case.delivery.tool
        ) as span:
            span.set_attribute("outcome", Outcome.Name(case.verdict.outcome))

    def _step_by_step(self, cases: Sequence[Case], steps: Sequence[Step]) -> None:
        for step in steps:
            cases = [case for case in cases if self._goes_on(step, case)]

    def _goes_on(self, step: Step, case: Case) -> bool:
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
        verdict = case.verdict
        if case.again is None:
            self._rejections.refused(refusal, case.delivery, case.source)
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
        if self._addresses is not None and not case.is_producer:
            self._look_up(case, source)
        if (delivery.query or delivery.method != "POST") and self._greeted(case, source):
            return False
        body = case.body = delivery.body
        if len(body) > source.max_body_bytes:
            raise _Refused(Refusal.BODY_TOO_LARGE)
        headers = case.headers = _headers(delivery, source)
        case.content_type = _content_type(headers, source)
        case.proof = self._proof(case, source, body)
        if not body:
            raise _Refused(Refusal.BODY_EMPTY)
        return True

    def _greeted(self, case: Case, source: Source) -> bool:
        """Answer a handshake that stands in the query; nothing else may come by another method than POST."""
        delivery, handshake = case.delivery, source.handshake
        token = handshake.token_of(delivery.method, delivery.query, delivery.body) if handshake else ""
        if handshake and token:
            reply = handshake.reply(token, source.checks, self._clock())
            if isinstance(reply, Refusal):
                raise _Refused(reply)
            self._answer(case, source, reply)
            return True
        if delivery.method != "POST":
            raise _Refused(Refusal.METHOD)
        return False

    def _look_up(self, case: Case, source: Source) -> None:
        """Hold the sender's address against the source's allow-list, if it has one."""
        allowed = self._addresses.of(source.tenant, source.tool) if self._addresses else None
        if allowed is None:
            return
        case.address = allowed.verdict(case.delivery.peer_address)
        if not allowed.enforced:
            return
        if case.address == ADDRESS_VERDICT_UNLISTED:
            raise _Refused(Refusal.ADDRESS)
        if case.address == ADDRESS_VERDICT_UNSPECIFIED:
            # A list that was never read says neither yes nor no.
            raise _Refused(Refusal.INTERNAL)

    def _proof(self, case: Case, source: Source, body: bytes) -> Proof:
        if case.is_producer:
            return Proof(PRODUCER_SCHEME, case.delivery.producer.key_id, None)
        if not self._verifying:
            return Proof(UNVERIFIED_SCHEME, "", None)
        received_s = case.again.received_s if case.again else None
        found = verify(source.checks, case.headers, body, self._clock(), received_s)
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
        body = case.body
        form_field = source.row.form_field if case.content_type == FORM else ""
        outcome = OUTCOME_ADMITTED
        try:
            document = source.reader.read(body, form_field)
            if source.row.handshake and self._answered(case, source, document):
                return False
        except Unusable as unusable:
            self._rejections.quarantined(
                unusable.reason, source.tenant, source.tool, case.delivery.peer_address, body
            )
            document, outcome = None, OUTCOME_QUARANTINED
        if source.event_types is not None and not _is_wanted(case, source, document):
            raise _Refused(Refusal.EVENT_TYPE)
        case.document = document
        case.verdict.outcome = outcome
        self._happened.append(source.outcomes["admitted" if document is not None else "quarantined"])
        return True

    def _answered(self, case: Case, source: Source, document: Any) -> bool:
        row = source.row.handshake
        if not (source.handshake and row and row.when and row.reply):
            return False
        if text_at((row.when,), case.headers, document) != row.equals:
            return False
        token = text_at((row.reply,), case.headers, document)
        reply = source.handshake.reply(token, source.checks, self._clock())
        if isinstance(reply, Refusal):
            raise Unusable("handshake_without_reply")
        self._answer(case, source, reply)
        return True

    def _answer(self, case: Case, source: Source, reply: Reply) -> None:
        case.verdict.outcome = OUTCOME_ANSWERED
        answer = case.verdict.answer
        answer.http_status, answer.content_type, answer.body = 200, reply.content_type, reply.body
        self._happened.append(source.outcomes["answered"])

    def _name(self, case: Case) -> bool:
        """Make the event of a delivery, and say what makes it the same as another."""
        source = case.source
        assert source is not None
        name(case, self._clock())
        if source.masks:
            case.body = masked(case.body, source.masks)
        case.document = None
        return True

    def _is_new(self, case: Case) -> bool:
        """Hold back what may be a duplicate."""
        source, known = case.source, self._known
        assert source is not None
        assert known is not None
        # What is to be safer than its stream makes it is vouched for by who publishes it.
        if source.durability or case.verdict.outcome != OUTCOME_ADMITTED or not known.may_know(case.verdict):
            return True
        self._held.append(case)
        return False

    def _repeat(self, case: Case, first_event_id: str) -> None:
        verdict = case.verdict
        verdict.Clear()
        verdict.outcome, verdict.first_event_id = OUTCOME_DUPLICATE, first_event_id
        if case.traced_from_ns:
            self._trace(case)

    def _seal(self, case: Case) -> bool:
        event, source, payload = case.event, case.source, case.body
        assert source is not None
        case.body = b""
        sealed, event_id = case.verdict.event, event.id
        content = b"".join(
            (event.SerializeToString(), before(WebhookEvent.PAYLOAD_FIELD_NUMBER, len(payload)), payload)
        )
        sealed.sealed = self._keyring.seal(
            source.tenant, content, "event", event_id, dictionary=source.dictionary, level=QUICK_LEVEL
        )
        if self._samples is not None:
            self._samples.offer(source.tenant, source.dictionary, content)
        sealed.id, sealed.tenant, sealed.tool, sealed.type = event_id, source.tenant, source.tool, event.type
        sealed.received_time.CopyFrom(event.received_time)
        sealed.schema = SCHEMA
        sealed.traceparent = event.traceparent
        return True


def _is_wanted(case: Case, source: Source, document: Any) -> bool:
    given = case.delivery.producer.type if case.is_producer else ""
    event_type = given or text_at(source.row.event.type, case.headers, document)
    if not event_type and document is None:
        # What can't be read may well be wanted: somebody will look at it.
        return True
    return source.event_types is None or (event_type or source.row.event.otherwise) in source.event_types


def _portions(cases: Sequence[Case]) -> Iterator[list[Case]]:
    portion: list[Case] = []
    size_bytes = 0
    for case in cases:
        portion.append(case)
        size_bytes += len(case.body)
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


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else ""
