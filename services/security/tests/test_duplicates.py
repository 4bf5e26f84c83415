"""What makes two deliveries the same one, row by row of the catalogue, and how long that holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, Verdict
from webhook_security import catalogue
from webhook_security.settings import DeduplicationSection, SecuritySection

from services.security.tests.proofs import SECRETS, signed

CATALOGUE = catalogue.load("X-Webhook-Signature")
AT = "2026-01-02T03:04:05Z"
AT_MS = 1_767_323_045_000
BODY = "the body's digest"


class Row(NamedTuple):
    """How a sender names a delivery.

    Attributes:
        entry: Of the catalogue.
        body: Of a delivery that has everything.
        headers: The same.
        by: What the id is taken from, first choice first; at the end of each the body's digest.
        scope: What it is unique within.
        replay: Whether it is recognised under another id.
        compares: Whether its bodies are compared.
        scheme: Which of the entry's.
    """

    entry: str
    body: dict[str, Any]
    headers: dict[str, str]
    by: tuple[str, ...]
    scope: str = ""
    replay: bool = False
    compares: bool = True
    scheme: int = 0


ISSUE = {"issue": {"id": 1, "updated_at": AT}}
ROWS = [
    Row(
        "github",
        ISSUE,
        {"x-github-delivery": "g", "x-github-hook-id": "h", "x-github-event": "issues"},
        ("x-github-delivery",),
        "x-github-hook-id",
        replay=True,
    ),
    Row(
        "gitlab",
        {"object_kind": "push"},
        {"idempotency-key": "i", "x-gitlab-event-uuid": "u", "x-gitlab-webhook-uuid": "h"},
        ("idempotency-key", "x-gitlab-event-uuid"),
        "x-gitlab-webhook-uuid",
        scheme=1,
    ),
    Row(
        "jira",
        {"timestamp": AT_MS, "issue": {"self": "https://one.atlassian.net/1"}},
        {"x-atlassian-webhook-identifier": "j"},
        ("x-atlassian-webhook-identifier",),
        "issue",
        replay=True,
    ),
    Row(
        "bitbucket",
        {"pullrequest": {"updated_on": AT}},
        {"x-request-uuid": "c", "x-request-id": "d", "x-hook-uuid": "h"},
        ("x-request-uuid", "x-request-id"),
        "x-hook-uuid",
        replay=True,
    ),
    Row("slack", {"event_id": "Ev1", "team_id": "T1"}, {}, ("event_id",), "team_id"),
    Row("stripe", {"id": "evt_1", "created": 1767323045}, {}, ("id",), compares=False),
    Row(
        "shopify",
        {"updated_at": AT},
        {"x-shopify-webhook-id": "w", "x-shopify-shop-domain": "s", "x-shopify-topic": "orders/create"},
        ("x-shopify-webhook-id",),
        "x-shopify-shop-domain",
        replay=True,
    ),
    Row("pagerduty", {"event": {"occurred_at": AT}}, {"x-webhook-id": "w"}, ("x-webhook-id",), replay=True),
    Row(
        "linear",
        {"createdAt": AT, "webhookId": "h"},
        {"linear-delivery": "l"},
        ("linear-delivery",),
        "webhookId",
        replay=True,
        compares=False,
    ),
    Row("sentry", {"action": "created"}, {"request-id": "r"}, ("request-id",)),
    Row("circleci", {"id": "c-1"}, {}, ("id",)),
    Row("sonarqube", {"taskId": "t", "serverUrl": "u"}, {}, ("taskId",), "serverUrl"),
    Row("azure-devops", {"id": "a", "subscriptionId": "s"}, {}, ("id",), "subscriptionId"),
    Row("terraform", {"run_id": "r"}, {}, ()),
    Row("grafana", {"status": "firing"}, {}, ()),
    Row("twitter", {"for_user_id": "1"}, {}, ()),
    Row("standard-webhooks", {"type": "user.created"}, {}, ()),
    Row(
        "generic",
        {"type": "deployed"},
        {"x-webhook-id": "w", "idempotency-key": "i"},
        ("x-webhook-id", "idempotency-key"),
    ),
]
SIGNED_IDS = frozenset({"standard-webhooks"})
IN_THE_BODY = frozenset({"microsoft-graph"})


@pytest.fixture
def judging(make_judge: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A judge that knows one sender by the secret of one of its schemes."""

    def make(row: Row, deduplication: dict[str, Any] | None = None) -> Any:
        monkeypatch.setenv("THE_SECRET", SECRETS[CATALOGUE[row.entry].schemes[row.scheme].key])
        security = SecuritySection.model_validate({"signature_secrets": {row.entry: "env:THE_SECRET"}})
        return make_judge(security, DeduplicationSection.model_validate(deduplication or {}))

    return make


@pytest.fixture
def judged(judging: Any, deliver: Any) -> Callable[..., Verdict]:
    """`judged(row, body, headers)`: the verdict on a delivery that is signed right."""

    def one(row: Row, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Verdict:
        scheme = CATALOGUE[row.entry].schemes[row.scheme]
        content = row.body if body is None else body
        if scheme.timestamp and scheme.timestamp.field:
            content = {**content, scheme.timestamp.field: NOW * 1000}
            scheme = scheme.model_copy(update={"timestamp": None})
        request = signed(scheme, orjson.dumps(content), now=NOW)
        every = {**(row.headers if headers is None else headers), **request.headers}
        judge = judging(row)
        judge.now = lambda: NOW
        verdict: Verdict = judge(deliver(row.entry, request.body, every))
        assert verdict.outcome == OUTCOME_ADMITTED
        assert verdict.dedup_key
        return verdict

    return one


NOW = int(time.time())


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def test_every_row_of_the_catalogue_is_here() -> None:
    assert {row.entry for row in ROWS} == set(CATALOGUE) - IN_THE_BODY


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.entry)
def test_a_delivery_is_named_by_the_first_id_that_is_there(judged: Any, row: Row) -> None:
    """Each id in turn is the name, whatever else changes; with none left the body is, never nothing."""
    headers, body, names = dict(row.headers), dict(row.body), []
    for name in row.by:
        verdict = judged(row, body, headers)
        assert judged(row, {**body, "another": "field"}, headers).dedup_key == verdict.dedup_key
        place = headers if name in headers else body
        renamed = {**place, name: "another id"}
        other = judged(row, body, renamed) if place is headers else judged(row, renamed, headers)
        assert other.dedup_key != verdict.dedup_key
        empty = judged(row, body, {**headers, name: ""}) if place is headers else None
        names.append(verdict.dedup_key)
        headers, body = without(headers, name), without(body, name)
        if empty is not None:
            assert empty.dedup_key == judged(row, body, headers).dedup_key
    bare = judged(row, body, headers)
    names.append(bare.dedup_key)
    assert len(set(names)) == len(names)
    if row.entry not in SIGNED_IDS:
        assert judged(row, {**body, "another": "field"}, headers).dedup_key != bare.dedup_key
        # There is nothing to compare where the body is the name.
        assert not bare.body_digest


@pytest.mark.parametrize("row", [row for row in ROWS if row.scope], ids=lambda row: row.entry)
def test_the_same_id_of_another_hook_is_another_delivery(judged: Any, row: Row) -> None:
    elsewhere = {"self": "https://two.atlassian.net/1"} if row.entry == "jira" else "another"
    if row.scope in row.headers:
        other = judged(row, None, {**row.headers, row.scope: elsewhere})
    else:
        other = judged(row, {**row.body, row.scope: elsewhere})
    assert other.dedup_key != judged(row).dedup_key


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.entry)
def test_what_is_signed_is_known_under_another_id_where_ids_are_not(judged: Any, row: Row) -> None:
    verdict = judged(row)
    assert bool(verdict.replay_key) == row.replay
    if row.replay:
        renamed = {
            **row.headers,
            row.by[0]: "minted",
            **({row.scope: "minted"} if row.scope in row.headers else {}),
        }
        replayed = judged(row, None, renamed)
        assert replayed.dedup_key != verdict.dedup_key
        assert replayed.replay_key == verdict.replay_key != verdict.dedup_key
        assert verdict.replay_window.seconds >= 600
        assert judged(row, {**row.body, "another": "field"}).replay_key != verdict.replay_key


@pytest.mark.parametrize("row", [row for row in ROWS if row.replay], ids=lambda row: row.entry)
def test_bodies_that_do_not_say_when_may_be_equal(judged: Any, row: Row) -> None:
    """A workflow that is dispatched twice has the same body twice, and both count."""
    body = {"webhookId": "h"} if row.entry == "linear" else {"ref": "main", "inputs": None}
    assert not judged(row, body).replay_key


def test_an_order_is_the_body_of_several_topics(judged: Any) -> None:
    row = next(row for row in ROWS if row.entry == "shopify")
    paid = {**row.headers, "x-shopify-topic": "orders/paid", "x-shopify-webhook-id": "another"}
    assert judged(row, None, paid).replay_key != judged(row).replay_key


@pytest.mark.parametrize("row", [row for row in ROWS if row.by], ids=lambda row: row.entry)
def test_bodies_of_one_id_are_told_apart_where_a_sender_repeats_itself_in_the_same_words(
    judged: Any, row: Row
) -> None:
    digests = {judged(row).body_digest, judged(row, {**row.body, "another": "field"}).body_digest}
    assert len(digests) == (2 if row.compares else 1)
    assert ("" in digests) == (not row.compares)


def test_a_window_of_the_guide_does_not_shorten_the_memory_for_replays(judging: Any, deliver: Any) -> None:
    row = ROWS[0]
    judge = judging(row, {"window_configs": {"github": {"duration": "5m", "max_size": 3}}})
    request = signed(CATALOGUE["github"].schemes[0], orjson.dumps(row.body), now=NOW)
    verdict = judge(deliver("github", request.body, {**row.headers, **request.headers}))
    assert (verdict.dedup_window.seconds, verdict.occurrences_allowed) == (300, 3)
    assert verdict.replay_window.seconds == 3 * 24 * 3600


def test_a_users_own_source_may_have_all_of_it(make_judge: Any, deliver: Any, sign: Any) -> None:
    dedup = {"window": "1h", "replay": "signature", "replay_window": "20m", "compare": "none"}
    judge = make_judge(SecuritySection.model_validate({"sources": {"acme-ci": {"dedup": dedup}}}))
    body = orjson.dumps({"created_at": AT})
    headers = {**sign.generic(body), "x-webhook-id": "a"}
    verdict = judge(deliver("acme-ci", body, headers))
    assert (verdict.dedup_window.seconds, verdict.replay_window.seconds) == (3600, 1200)
    assert not verdict.body_digest
    again = judge(deliver("acme-ci", body, {**headers, "x-webhook-id": "b"}))
    assert again.replay_key == verdict.replay_key


def test_who_replaces_the_dates_of_an_entry_goes_without(make_judge: Any) -> None:
    judge = make_judge(
        SecuritySection.model_validate({"sources": {"github": {"event": {"otherwise": "hub"}}}})
    )
    assert judge.registry.find("", "github").replays is None
    assert all(not row.replay_problem for row in CATALOGUE.values())


@pytest.mark.parametrize(
    ("dedup", "event", "told"),
    [
        ({"window": "1h", "replay": "signature"}, {"type": ["body:type"]}, "event.occurred"),
        ({"window": "1h", "replay": "mac"}, {}, "dedup.replay"),
    ],
)
def test_a_replay_that_can_not_be_told_is_refused_at_the_start(
    make_judge: Any, dedup: dict[str, Any], event: dict[str, Any], told: str
) -> None:
    source = {"dedup": dedup, **({"event": event} if event else {})}
    with pytest.raises((catalogue.CatalogueError, ValueError), match=told):
        make_judge(SecuritySection.model_validate({"sources": {"acme-ci": source}}))
