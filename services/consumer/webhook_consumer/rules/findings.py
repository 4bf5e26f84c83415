"""What can be said of a webhook whose sender nobody described: the id-ish, title-ish and actor-ish fields.

Paths name places; here the places are unknown and only the names are familiar, which a rule can't say.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from webhook_consumer.rules.filters import FILTERS
from webhook_consumer.rules.values import as_text, scalar_text, web_address

_PROSE = FILTERS["prose"]

# Where senders wrap the thing that the event is about, outermost first.
_WRAPPERS = ("data", "object", "payload", "event", "detail", "resource", "body", "attributes")
# Things that events are about, the more telling first.
_THINGS = (
    "deployment", "deploy", "incident", "alert", "build", "pipeline", "run", "job", "release", "ticket",
    "issue", "task", "check", "monitor", "order", "invoice", "payment", "subscription", "customer", "form",
    "item",
)  # fmt: skip
# Fields by which a sender itself groups events; CloudEvents' `subject`, Alertmanager's `groupKey`.
_GROUPS = (
    "context_key", "correlation_id", "correlationId", "subject", "groupKey", "group_key", "fingerprint",
)  # fmt: skip
_IDS = ("id", "key", "number", "iid", "uuid", "identifier", "slug")
_NAMED_IDS = (*_IDS, "name")
_TITLES = ("title", "name", "summary", "headline", "subject", "display_name", "displayName", "label")
# What a thing without a title belongs to.
_OWNERS = ("service", "application", "app", "project", "component", "repository", "environment", "host")
_ACTORS = (
    "actor", "user", "sender", "author", "triggered_by", "triggeredBy", "initiated_by", "created_by",
    "createdBy", "deployed_by", "initiator", "requester", "owner", "pusher", "username", "user_name",
    "login", "email",
)  # fmt: skip
_PERSON = ("login", "username", "user_name", "name", "display_name", "displayName", "email", "id")
_TEXTS = (
    "message", "text", "body", "description", "summary", "details", "reason", "error", "content", "comment",
)  # fmt: skip
_STATES = ("state", "status", "conclusion", "outcome", "result", "phase")
_URLS = ("html_url", "web_url", "webUrl", "url", "link", "href", "permalink", "target_url", "log_url", "self")
_TIMES = (
    "occurred_at", "occurred_time", "occurredAt", "finished_at", "completed_at", "ended_at", "updated_at",
    "updatedAt", "started_at", "created_at", "createdAt", "timestamp", "time", "date", "created", "ts",
)  # fmt: skip
_LABELS = ("labels", "tags")
_TYPES = ("event_type", "eventType", "event_name", "type", "event", "kind", "topic", "action")

_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|api_?key|access_?key|private_?key|credential|authori[sz]ation|cookie"
    r"|session|signature|otp$|^pin$|^cvv|card_?number|^iban$|^ssn$|challenge",
    re.IGNORECASE,
)
_DETAILS_LIMIT = 40
_DETAIL_LIMIT_CHARS = 500
_DETAIL_DEPTH = 4
_MEMBERS_LIMIT = 200

Body = Mapping[str, object]
Reader = Callable[[object], str]


def find(payload: object) -> Mapping[str, object]:
    """Kind, id, type, title, about, actor, text, details, state, url, time and labels; empty where none."""
    bodies = list(_bodies(payload))
    kind, key, thing = _thing(bodies)
    places = [thing, *reversed(bodies)] if thing is not None else list(reversed(bodies))
    text = _first(places, _TEXTS, _PROSE)
    title = _first(places, _TITLES, scalar_text)
    event_type = _first(bodies, _TYPES, scalar_text)
    return {
        "kind": kind,
        "id": key,
        "type": event_type,
        "title": title,
        "about": _first(places, _OWNERS, _person),
        "actor": _first([*bodies, *([thing] if thing is not None else [])], _ACTORS, _person),
        "text": text,
        "details": list(islice(_details(payload, "", 0, {text, title, event_type, ""}), _DETAILS_LIMIT)),
        "state": _first(places, _STATES, scalar_text),
        "url": _first(places, _URLS, _address),
        "time": _first(bodies, _TIMES, scalar_text),
        "labels": _labels(places),
    }


def _bodies(payload: object) -> Iterator[Body]:
    """The payload's object and those that it wraps, outermost first; of a list its first object."""
    if isinstance(payload, list):
        payload = next((item for item in islice(payload, _MEMBERS_LIMIT) if isinstance(item, dict)), None)
    seen = 0
    while isinstance(payload, dict) and seen < len(_WRAPPERS):
        yield payload
        seen += 1
        payload = next((payload[name] for name in _WRAPPERS if isinstance(payload.get(name), dict)), None)


def _thing(bodies: list[Body]) -> tuple[str, str, Body | None]:
    """What the event is about: its kind, its id, and its object; empty where nothing tells."""
    for body in bodies:
        for name in _GROUPS:
            if key := scalar_text(body.get(name)):
                return "group", key, None
    for body in reversed(bodies):
        for name in _THINGS:
            value = body.get(name)
            if isinstance(value, dict) and (key := _first([value], _NAMED_IDS, scalar_text)):
                return name, key, value
            if key := scalar_text(body.get(f"{name}_id")) or scalar_text(body.get(f"{name}Id")):
                return name, key, None
    if bodies and (key := _first(bodies[-1:], _IDS, scalar_text)):
        # The innermost object's id is the thing's; a wrapper's would be the event's, which nothing shares.
        thing = bodies[-1]
        return _first([thing], ("object", "kind"), scalar_text) or "item", key, thing
    return "", "", None


def _first(places: list[Body], names: tuple[str, ...], read: Reader) -> str:
    for place in places:
        for name in names:
            if text := read(place.get(name)).strip():
                return text
    return ""


def _person(value: object) -> str:
    return _first([value], _PERSON, scalar_text) if isinstance(value, dict) else scalar_text(value)


def _address(value: object) -> str:
    return web_address(as_text(value))


def _labels(places: list[Body]) -> list[str]:
    for place in places:
        for name in _LABELS:
            value = place.get(name)
            if isinstance(value, dict):
                return [line.replace(": ", "=", 1) for line in _details(value, "", _DETAIL_DEPTH - 1, {""})]
            if isinstance(value, list):
                return [text for item in islice(value, _MEMBERS_LIMIT) if (text := _person(item))]
    return []


def _details(value: object, name: str, depth: int, said: set[str]) -> Iterator[str]:
    """Lines "name: value" of the scalars, without those that may be secrets and those already said."""
    if isinstance(value, dict | list) and depth < _DETAIL_DEPTH:
        for key, member in islice(_members(value), _MEMBERS_LIMIT):
            if not _SECRET_NAME.search(key):
                yield from _details(member, f"{name}.{key}".lstrip("."), depth + 1, said)
        return
    text = scalar_text(value).strip()
    if text not in said:
        yield f"{name}: {text[:_DETAIL_LIMIT_CHARS]}".removeprefix(": ")


def _members(value: dict[str, object] | list[object]) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()
    else:
        yield from ((str(place), item) for place, item in enumerate(value, start=1))
