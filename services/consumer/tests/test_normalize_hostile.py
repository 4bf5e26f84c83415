"""Whatever a sender sends: nothing raises, everything is bounded, nothing odd gets through."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.normalize import Append, Normalizer
from webhook_consumer.rules.values import (
    CONTEXT_ID_LIMIT_CHARS,
    NAME_LIMIT_CHARS,
    TEXT_LIMIT_BYTES,
    TITLE_LIMIT_CHARS,
    context_id,
    key_part,
    line,
    passage,
)

NORMALIZER = Normalizer.load()
TOOLS = ("github", "gitlab", "jira", "slack", "acme")
# Keys that the rules look for, so that odd values land where they are read.
KEYS = (
    "action", "actor", "after", "alert", "assignee", "attachments", "author", "before", "blocks", "body",
    "branches", "builds", "changelog", "changes", "channel", "check_run", "check_suite", "comment",
    "commit", "commits", "compare", "conclusion", "content", "created_at", "data", "deleted",
    "deployment", "deployment_status", "discussion", "event", "fields", "files", "from", "fromString",
    "full_name", "group", "head", "head_commit", "head_sha", "html_url", "id", "iid", "installation",
    "issue", "issuelinks", "item", "items", "key", "kind", "label", "labels", "login", "merge_request",
    "message", "milestone", "name", "note", "number", "object_attributes", "object_kind", "organization",
    "package", "pages", "parent", "path_with_namespace", "pipeline_id", "project", "pull_request",
    "pull_requests", "pusher", "reaction", "ref", "ref_type", "release", "repository", "review", "secret",
    "security_advisory", "self", "sender", "sha", "snippet", "sprint", "state", "status", "steps",
    "subtype", "summary", "tag", "team", "team_id", "text", "thread_ts", "title", "toString", "ts",
    "type", "updated_at", "url", "user", "version", "webhookEvent", "workflow_job", "workflow_run",
    "worklog",
)  # fmt: skip
TYPES = sorted(
    {"other", "", "ü:\n"}.union(name for book in NORMALIZER._rulebooks.values() for name in book.rules)
)

WORDS = st.sampled_from(
    ["refs/heads/main", "refs/tags/1", "0" * 40, "octo/hello", "#1 fixes #2", "https://x/y", "A-1"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | WORDS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=8)
    ),
    max_leaves=40,
)


def normalized(tool: str, event_type: str, payload: Any) -> list[Append]:
    event = WebhookEvent(
        tool=tool, type=event_type, payload=json.dumps(payload).encode(), content_type="application/json"
    )
    return NORMALIZER.normalize(event)


def assert_sound(append: Append) -> None:
    assert 0 < len(append.context_id) <= CONTEXT_ID_LIMIT_CHARS
    assert append.kind
    assert append.text
    assert len(append.text.encode()) <= TEXT_LIMIT_BYTES
    assert len(append.title) <= TITLE_LIMIT_CHARS
    for name in (append.kind, append.type, append.action, append.actor, append.state, *append.labels):
        assert len(name) <= NAME_LIMIT_CHARS
        assert "\n" not in name
    for address in (append.url, append.context_url):
        assert address == "" or address.lower().startswith(("http://", "https://"))
    assert len(append.labels) <= 50
    assert len(append.links) <= 32
    for link in append.links:
        assert 0 < len(link.context_id) <= CONTEXT_ID_LIMIT_CHARS
        assert link.relation
    assert append.occurred is None or append.occurred.tzinfo is not None
    for text in (append.text, append.title, append.actor, append.context_id):
        assert not any(ord(char) < 32 and char not in "\n\t" for char in text)
    assert not any(char in append.context_id for char in "{} \n")


@settings(max_examples=300, deadline=None)
@given(tool=st.sampled_from(TOOLS), event_type=st.sampled_from(TYPES), payload=JSON)
def test_any_json_of_any_type_is_taken(tool: str, event_type: str, payload: Any) -> None:
    appends = normalized(tool, event_type, payload)
    assert appends
    assert len({append.context_id for append in appends}) == len(appends)
    for append in appends:
        assert_sound(append)


@settings(max_examples=25, deadline=None)
@given(value=JSON)
@pytest.mark.parametrize("tool", TOOLS)
def test_any_value_may_stand_anywhere(tool: str, value: Any) -> None:
    """Each event type gets a payload whose every familiar field is the same odd thing."""
    payload = dict.fromkeys(KEYS, value) | {"repository": {"full_name": value}, "project": value}
    for event_type in TYPES[::7]:
        for append in normalized(tool, event_type, payload):
            assert_sound(append)


def test_a_flood_is_cut() -> None:
    many = [{"id": f"{index:040x}", "message": f"fixes #{index} " + "x" * 2000} for index in range(3000)]
    payload = {
        "ref": "refs/heads/" + "b" * 5000,
        "repository": {"full_name": "octo/hello"},
        "commits": many,
        "pusher": {"name": "n" * 9999},
    }
    (append,) = normalized("github", "push", payload)
    assert_sound(append)
    assert len(append.links) == 32
    assert len(append.context_id) == CONTEXT_ID_LIMIT_CHARS
    other = payload | {"ref": "refs/heads/" + "b" * 5000 + "c"}
    assert (
        append.context_id == normalized("github", "push", other)[0].context_id[:447] + append.context_id[447:]
    )


def test_long_texts_stay_cheap() -> None:
    """No mention's pattern may run wild: each of these is 8 MB of its favourite food."""
    for food in ("fixes ", "a/b", "#1 ", "A-1-", "https://", "<@", "x.", "- ", "/-/issues/", "/browse/A"):
        text = food * (8_000_000 // len(food))
        payload = {"action": "opened", "issue": {"number": 1, "title": text, "body": text}}
        (append,) = normalized("github", "issues", payload | {"repository": {"full_name": "octo/hello"}})
        assert_sound(append)
        (append,) = normalized(
            "slack", "message", {"team_id": "T", "event": {"channel": "C", "ts": "1.1", "text": text}}
        )
        assert_sound(append)


def test_deep_documents_are_taken() -> None:
    deep: Any = {"text": "bottom"}
    for _ in range(400):
        deep = {"content": [deep]}
    payload = {"comment": {"body": deep}, "issue": {"key": "A-1", "self": "https://x.example"}}
    (append,) = normalized("jira", "comment_created", payload)
    assert append.text.endswith("bottom")


@pytest.mark.parametrize("year", [2026, 9999])
def test_a_clock_at_the_end_of_all_years_does_not_stop_an_event(year: int) -> None:
    event = WebhookEvent(tool="github", type="push", payload=b'{"repository": {"full_name": "octo/hello"}}')
    event.received_time.FromDatetime(datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC))
    event.occurred_time.CopyFrom(event.received_time)
    [append, *_] = NORMALIZER.normalize(event)
    assert append.occurred == event.received_time.ToDatetime(UTC)


def test_addresses_that_are_not_the_webs_are_dropped() -> None:
    issue = {"number": 1, "title": "T", "html_url": "javascript:alert(1)"}
    (append,) = normalized("github", "issues", {"issue": issue, "repository": {"full_name": "octo/hello"}})
    assert append.url == ""
    assert append.context_url == ""


@given(st.text())
def test_key_parts_keep_apart_what_is_apart(text: str) -> None:
    encoded = key_part(text)
    assert not any(char in encoded for char in ":{} \n\t")
    assert key_part("a:b") != key_part("a%3Ab")


@given(st.text(max_size=50))
def test_lines_and_passages_are_clean(text: str) -> None:
    for cleaned in (line(text, 20), passage(text, 30)):
        assert not any(char in cleaned for char in "\x00\x07\x1b\x7f\x85\u202e\u2066")
    assert len(line(text, 20)) <= 20
    assert len(passage(text, 30).encode()) <= 30


def test_text_is_cut_between_characters() -> None:
    assert passage("é" * 10, 5) == "éé"
    assert passage("a\r\nb\rc\x00\u202e") == "a\nb\nc"


def test_ids_that_are_too_long_stay_distinct() -> None:
    one, two = (context_id("acme", "x" * 600 + end) for end in "ab")
    assert one != two
    assert len(one) == len(two) == CONTEXT_ID_LIMIT_CHARS
