"""Makes the event of a delivery that was believed, and says what makes it the same as another."""

from __future__ import annotations

from typing import Any

import uuid_utils
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.security.v1.admission_pb2 import Verdict

from webhook_security.case import Again, Case
from webhook_security.duplicates.keys import again_key, body_digest, dedup_key, short_digest
from webhook_security.payloads.fields import text_at, time_at
from webhook_security.registry.sources import Replays, Source

_LONGEST_KEPT_HEADER_BYTES = 1024
_NANOS_PER_S = 1_000_000_000


def name(case: Case, now: float) -> None:
    """Fill in the event but for its payload, and of the verdict what says when it is a duplicate.

    Args:
        case: Proved and read.
        now: Unix seconds.
    """
    source, delivery, headers, document = case.source, case.delivery, case.headers, case.document
    assert source is not None
    row, proof = source.row, case.proof
    given_id, given_type = "", ""
    if case.is_producer:
        given_id, given_type = delivery.producer.delivery_id, delivery.producer.type
    sent_id = given_id or text_at(row.delivery.id, headers, document)
    delivery_id = sent_id or body_digest(case.body)
    event = case.event = WebhookEvent(
        id=case.again.event_id if case.again else str(uuid_utils.uuid7()),
        tenant=source.tenant,
        tool=source.tool,
        type=given_type or text_at(row.event.type, headers, document) or row.event.otherwise,
        action=text_at(row.event.action, headers, document),
        delivery_id=delivery_id,
        content_type=case.content_type,
        traceparent=delivery.traceparent,
    )
    # Sub-messages are filled in place: to hand them to the constructor costs twice as much.
    kept = event.headers
    for header in row.keep_headers:
        value = headers.get(header)
        if value is not None and len(value) <= _LONGEST_KEPT_HEADER_BYTES:
            kept[header] = value.decode("latin-1")
    _date(case, source, now)
    trust = event.trust
    trust.scheme, trust.key_id = proof.scheme, proof.key_id
    if proof.skew_s is not None:
        set_seconds(trust.clock_skew, proof.skew_s)
    if case.address:
        trust.address_verdict = case.address
    verdict = case.verdict
    scope = text_at(row.delivery.scope, headers, document)
    verdict.dedup_key = dedup_key(source.tenant, source.tool, scope, delivery_id)
    verdict.dedup_window.seconds = source.window_s
    verdict.occurrences_allowed = source.occurrences
    if source.compares_bodies and sent_id:
        verdict.body_digest = short_digest(case.body)
    if source.replays is not None and proof.signature:
        _name_signed(case, source, source.replays)
    if case.again and case.again.nonce:
        _name_apart(verdict, case.again)
    if source.durability:
        verdict.durability = source.durability


def set_seconds(target: Any, seconds: float) -> None:
    """Set a Timestamp or Duration."""
    # The same sign for both parts, as Duration wants it; times before 1970 do not get here.
    whole = int(seconds)
    target.seconds = whole
    target.nanos = int((seconds - whole) * _NANOS_PER_S)


def _date(case: Case, source: Source, now: float) -> None:
    event, row = case.event, source.row.event
    if case.delivery.HasField("received_time"):
        event.received_time.CopyFrom(case.delivery.received_time)
    else:
        set_seconds(event.received_time, now)
    occurred = time_at(row.occurred, row.occurred_unit, case.headers, case.document)
    if occurred is not None:
        set_seconds(event.occurred_time, occurred)


def _name_signed(case: Case, source: Source, replays: Replays) -> None:
    if replays.are_all_dates:
        is_dated = case.event.HasField("occurred_time")
    else:
        unit = source.row.event.occurred_unit
        is_dated = time_at(replays.dates, unit, case.headers, case.document) is not None
    if is_dated:
        verdict = case.verdict
        event_type = case.event.type if replays.by_type else ""
        verdict.replay_key = replays.signed.key(case.proof.signature, event_type)
        verdict.replay_window.seconds = replays.window_s


def _name_apart(verdict: Verdict, again: Again) -> None:
    verdict.dedup_key = again_key(verdict.dedup_key, again.nonce)
    verdict.ClearField("replay_key")
