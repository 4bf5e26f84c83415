"""The contract's messages, checked and turned into the domain's words, and back."""

from __future__ import annotations

import math
import re
import uuid
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from webhook.context.v1 import context_pb2 as pb
from webhook.context.v1.context_service_pb2 import (
    Append,
    AppendOutcome,
    ContextFilter,
    PatchContextRequest,
    SearchContextsRequest,
    UpdateContextRequest,
)
from webhook_shared.errors import InvalidArgument

from webhook_context.domain.contexts import WORDS, Appended, Change, Context, Entry, Filter, event_as_of
from webhook_context.domain.merge_patch import PatchError, parsed
from webhook_context.domain.revisions import attributes_json
from webhook_context.finding.documents import Model
from webhook_context.finding.index import Query

LONGEST_CONTEXT_ID = 1024
LONGEST_EVENT_ID = 256
LONGEST_NAME = 256
LONGEST_TEXT_BYTES = 16 * 1024
LONGEST_SUMMARY_BYTES = 64 * 1024
LONGEST_QUERY_BYTES = 4 * 1024
LARGEST_DIMENSION = 8192
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
UPDATABLE = frozenset({"title", "labels", "pinned", "enrichment"})
PATCHABLE: dict[str, tuple[type, str]] = {
    "title": (str, "must be text"),
    "labels": (list, "must be a list of texts"),
    "pinned": (bool, "must be true or false"),
    "attributes": (dict, "must be an object"),
}
LARGEST_PATCH_BYTES = 64 * 1024


def entry(tenant: str, append: Append) -> Entry:
    """An append as it goes into the store. Takes the payload out of the message.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    event = append.event
    wrong = _names(context_id=append.context_id, tool=append.tool, tenant=tenant)
    wrong |= _name("kind", append.kind, LONGEST_NAME, may_be_empty=True)
    wrong |= _name("event.event_id", event.event_id, LONGEST_EVENT_ID)
    if append.replay_id:
        wrong |= _name("replay_id", append.replay_id, LONGEST_NAME)
    as_of = event_as_of(event)
    if as_of.time_us <= 0:
        wrong["event.occurred_time"] = "is needed, or received_time"
    if len(event.text.encode()) > LONGEST_TEXT_BYTES:
        wrong["event.text"] = "is longer than 16 KiB"
    _refuse(wrong)
    payload = event.payload
    event.ClearField("payload")
    traceparent = append.traceparent
    append.ClearField("traceparent")
    replay_id = append.replay_id
    append.ClearField("replay_id")
    return Entry(
        tenant=tenant,
        context_id=append.context_id,
        event_id=event.event_id,
        tool=append.tool,
        kind=append.kind,
        as_of=as_of,
        record=append.SerializeToString(),
        payload=payload,
        traceparent=traceparent,
        replay_id=replay_id,
    )


def outcome(appended: Appended) -> AppendOutcome.ValueType:
    """What became of an event."""
    if appended.duplicate:
        return (
            AppendOutcome.APPEND_OUTCOME_DIFFERENT
            if appended.different
            else AppendOutcome.APPEND_OUTCOME_DUPLICATE
        )
    if appended.revived:
        return AppendOutcome.APPEND_OUTCOME_REVIVED
    if appended.created:
        return AppendOutcome.APPEND_OUTCOME_CREATED
    return AppendOutcome.APPEND_OUTCOME_APPENDED


def context(found: Context, into: pb.Context | None = None) -> pb.Context:
    """A context as the contract has it; in a message that is to have it, which saves copying it."""
    facts, message = found.facts, pb.Context() if into is None else into
    message.context_id, message.tenant = found.context_id, found.tenant
    words = facts.words
    for name in WORDS:
        if held := words.get(name):
            setattr(message, name, held.value)
    if labels := facts.labels.value:
        message.labels.extend(labels)
    if facts.actors:
        message.actors.extend(facts.recent_actors())
    for link in facts.recent_links() if facts.links else ():
        message.links.add(relation=link.relation, context_id=link.context_id)
    if found.events:
        message.events.extend(found.events)
    for event, payload in zip(message.events, found.payloads, strict=bool(found.payloads)):
        event.payload = payload
    if found.enrichment is not None:
        message.enrichment.CopyFrom(found.enrichment)
    message.event_count, message.version, message.etag = found.event_count, found.version, found.etag
    message.tier, message.pinned = found.tier, found.pinned
    _stamp(message.create_time, found.create_ms)
    _stamp(message.update_time, found.update_ms)
    if attributes := attributes_json(found):
        message.attributes_json = attributes
    return message


def change(tenant: str, request: UpdateContextRequest) -> Change:
    """What an update asks for.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    given, paths = request.context, frozenset(request.update_mask.paths)
    wrong = _names(context_id=given.context_id)
    if not paths or paths - UPDATABLE:
        wrong["update_mask"] = "must name one or more of title, labels, pinned, enrichment"
    if request.request_id and not _is_uuid(request.request_id):
        wrong["request_id"] = "must be a UUID"
    if "enrichment" in paths:
        wrong |= _enrichment_faults(given.enrichment)
    _refuse(wrong)
    enrichment = None
    if "enrichment" in paths:
        enrichment = pb.Enrichment()
        enrichment.CopyFrom(given.enrichment)
        enrichment.update_time.GetCurrentTime()
    return Change(
        tenant=tenant,
        context_id=given.context_id,
        etag=request.etag,
        request_id=request.request_id.lower(),
        title=given.title if "title" in paths else None,
        labels=tuple(given.labels) if "labels" in paths else None,
        pinned=given.pinned if "pinned" in paths else None,
        enrichment=enrichment,
    )


def patch(tenant: str, request: PatchContextRequest) -> Change:
    """What a merge patch asks for.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    wrong = _names(context_id=request.context_id)
    if request.request_id and not _is_uuid(request.request_id):
        wrong["request_id"] = "must be a UUID"
    asked: dict[str, Any] = {}
    try:
        if len(request.merge_patch_json.encode()) > LARGEST_PATCH_BYTES:
            raise PatchError("is longer than 64 KiB")
        asked = parsed(request.merge_patch_json)
    except PatchError as error:
        wrong["merge_patch_json"] = str(error)
    for name, value in asked.items():
        wrong |= _member_faults(name, value)
    _refuse(wrong)
    return Change(
        tenant=tenant,
        context_id=request.context_id,
        etag=request.etag,
        request_id=request.request_id.lower(),
        patch=asked,
    )


def _member_faults(name: str, value: Any) -> dict[str, str]:
    field = f"merge_patch_json.{name}"
    if name not in PATCHABLE:
        return {"merge_patch_json": f"may have {', '.join(PATCHABLE)} only"}
    kind, fault = PATCHABLE[name]
    if value is None or (isinstance(value, kind) and name != "labels"):
        return {}
    if name == "labels" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return {}
    return {field: fault}


def _enrichment_faults(enrichment: pb.Enrichment) -> dict[str, str]:
    wrong: dict[str, str] = {}
    if not 0 <= enrichment.importance <= 1:
        wrong["context.enrichment.importance"] = "must be 0 to 1"
    if len(enrichment.summary.encode()) > LONGEST_SUMMARY_BYTES:
        wrong["context.enrichment.summary"] = "is longer than 64 KiB"
    if len(enrichment.vector) and len(enrichment.vector) != enrichment.embedding_model.dimension:
        wrong["context.enrichment.vector"] = "must have as many numbers as embedding_model.dimension says"
    if len(enrichment.vector) > LARGEST_DIMENSION or not all(map(math.isfinite, enrichment.vector)):
        wrong["context.enrichment.vector"] = f"must be at most {LARGEST_DIMENSION} finite numbers"
    return wrong


def wanted(given: ContextFilter) -> Filter:
    """Which contexts to show."""
    return Filter(
        tools=frozenset(given.tools),
        kinds=frozenset(given.kinds),
        labels=frozenset(given.labels),
        updated_after_ms=given.updated_after.ToMilliseconds() if given.HasField("updated_after") else None,
        # A bound inside a millisecond still admits what changed in that millisecond's beginning.
        updated_before_ms=-(-given.updated_before.ToMicroseconds() // 1000)
        if given.HasField("updated_before")
        else None,
        min_importance=given.min_importance,
        tiers=frozenset(given.tiers),
    )


def query(request: SearchContextsRequest, *, exact: bool = False) -> Query:
    """What to look for.

    Args:
        request: Asks for it.
        exact: Compare every vector.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    wrong: dict[str, str] = {}
    if not request.query.strip() and not request.query_vector:
        wrong["query"] = "is needed, or query_vector"
    if len(request.query.encode()) > LONGEST_QUERY_BYTES:
        wrong["query"] = "is longer than 4 KiB"
    if len(request.query_vector) > LARGEST_DIMENSION or not all(map(math.isfinite, request.query_vector)):
        wrong["query_vector"] = f"must be at most {LARGEST_DIMENSION} finite numbers"
    if request.query_vector and not request.HasField("query_model"):
        wrong["query_model"] = "is needed with query_vector"
    _refuse(wrong)
    if not request.query_vector:
        return Query(request.query, exact=exact)
    model = request.query_model
    # The numbers themselves say the dimension: a vector of another length is of another model.
    vector = list(request.query_vector)
    return Query(request.query, Model(model.provider, model.name, len(vector)), vector, exact)


def context_id_faults(context_id: str) -> None:
    """Refuse what can't be a context's id.

    Raises:
        InvalidArgument: It is empty, too long or has control characters.
    """
    _refuse(_names(context_id=context_id))


def _names(**names: str) -> dict[str, str]:
    wrong: dict[str, str] = {}
    for field, value in names.items():
        wrong |= _name(field, value, LONGEST_CONTEXT_ID if field == "context_id" else LONGEST_NAME)
    return wrong


def _name(field: str, value: str, longest: int, *, may_be_empty: bool = False) -> dict[str, str]:
    if not value and not may_be_empty:
        return {field: "is needed"}
    if len(value) > longest:
        return {field: f"is longer than {longest} characters"}
    if _CONTROL.search(value):
        return {field: "has control characters"}
    return {}


def _refuse(wrong: dict[str, str]) -> None:
    if wrong:
        faults = "; ".join(f"{field} {fault}" for field, fault in wrong.items())
        raise InvalidArgument(faults, fields=wrong)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _stamp(stamp: Timestamp, unix_ms: int) -> None:
    stamp.seconds, left_ms = divmod(unix_ms, 1000)
    stamp.nanos = left_ms * 1_000_000
