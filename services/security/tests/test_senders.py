"""Each sender of the catalogue, end to end through the judge: let in, named, and a near-miss refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any, NamedTuple

import orjson
import pytest
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, OUTCOME_REFUSED, Verdict
from webhook.security.v1.admission_pb2 import Refusal as Cause
from webhook_security import catalogue
from webhook_security.settings import SecuritySection

from services.security.tests.proofs import SECRETS, signed

CATALOGUE = catalogue.load("X-Webhook-Signature")


class Sent(NamedTuple):
    """What a sender sends beside its proof, and what becomes of it."""

    entry: str
    body: Any
    headers: dict[str, str]
    type: str
    action: str
    delivery_id: str
    occurred: str
    scheme: int = 0


AT = "2026-01-02T03:04:05Z"
SENT = [
    Sent(
        "bitbucket",
        {"pullrequest": {"id": 1, "updated_on": AT}},
        {"x-request-uuid": "u-1", "x-hook-uuid": "h-1", "x-event-key": "pullrequest:created"},
        "pullrequest:created",
        "",
        "u-1",
        AT,
    ),
    Sent(
        "stripe",
        {"id": "evt_1", "type": "invoice.paid", "created": 1767323045},
        {},
        "invoice.paid",
        "",
        "evt_1",
        AT,
    ),
    Sent(
        "shopify",
        {"id": 820982911946154508},
        {
            "x-shopify-webhook-id": "w-1",
            "x-shopify-topic": "orders/create",
            "x-shopify-triggered-at": "2026-01-02T03:04:05.000000000Z",
        },
        "orders/create",
        "",
        "w-1",
        AT,
    ),
    Sent(
        "pagerduty",
        {"event": {"id": "01", "event_type": "incident.triggered", "occurred_at": AT}},
        {"x-webhook-id": "w-1"},
        "incident.triggered",
        "",
        "w-1",
        AT,
    ),
    Sent(
        "sentry",
        {"action": "created"},
        {"request-id": "r-1", "sentry-hook-resource": "issue", "sentry-hook-timestamp": "1767323045"},
        "issue",
        "created",
        "r-1",
        AT,
    ),
    Sent(
        "circleci",
        {"id": "c-1", "type": "job-completed", "happened_at": AT, "job": {"status": "failed"}},
        {},
        "job-completed",
        "failed",
        "c-1",
        AT,
    ),
    Sent(
        "sonarqube",
        {"taskId": "t-1", "analysedAt": "2026-01-02T04:04:05+0100", "qualityGate": {"status": "ERROR"}},
        {"x-sonarqube-project": "p"},
        "analysis",
        "ERROR",
        "t-1",
        AT,
    ),
    Sent(
        "terraform",
        {
            "run_id": "run-1",
            "notifications": [{"trigger": "run:errored", "run_status": "errored", "run_updated_at": AT}],
        },
        {},
        "run:errored",
        "errored",
        "sha256:",
        AT,
    ),
    Sent("grafana", {"status": "firing", "alerts": [{"startsAt": AT}]}, {}, "alert", "firing", "sha256:", AT),
    Sent("grafana", {"status": "firing", "alerts": []}, {}, "alert", "firing", "sha256:", "", 1),
    Sent(
        "azure-devops",
        {"id": "a-1", "subscriptionId": "s-1", "eventType": "build.complete", "createdDate": AT},
        {},
        "build.complete",
        "",
        "a-1",
        AT,
    ),
    Sent(
        "twitter",
        {"for_user_id": "2244994945", "favorite_events": [{"id": "1"}]},
        {},
        "favorite_events",
        "",
        "sha256:",
        "",
    ),
    Sent("standard-webhooks", {"type": "user.created", "timestamp": AT}, {}, "user.created", "", "msg-1", AT),
    Sent(
        "standard-webhooks", {"type": "user.created", "timestamp": AT}, {}, "user.created", "", "msg-1", AT, 1
    ),
]


@pytest.fixture
def judging(make_judge: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A judge that knows one sender by the secret of one of its schemes."""

    def make(entry: str, scheme: int = 0, **security: Any) -> Any:
        monkeypatch.setenv("THE_SECRET", SECRETS[CATALOGUE[entry].schemes[scheme].key])
        given = {"signature_secrets": {entry: "env:THE_SECRET"}, **security}
        return make_judge(SecuritySection.model_validate(given))

    return make


def cause(verdict: Verdict) -> str:
    assert verdict.outcome == OUTCOME_REFUSED
    return Cause.Name(verdict.refusal).removeprefix("REFUSAL_")


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.entry}-{sent.scheme}")
def test_a_sender_is_let_in_and_a_near_miss_is_not(judging: Any, deliver: Any, sent: Sent) -> None:
    judge = judging(sent.entry, sent.scheme)
    scheme = CATALOGUE[sent.entry].schemes[sent.scheme]
    request = signed(scheme, orjson.dumps(sent.body), now=int(time.time()))
    headers = {**sent.headers, **request.headers}
    verdict = judge(deliver(sent.entry, request.body, headers))
    assert verdict.outcome == OUTCOME_ADMITTED
    event = judge.opened(verdict)
    assert (event.tool, event.type, event.action) == (sent.entry, sent.type, sent.action)
    assert event.delivery_id.startswith(sent.delivery_id)
    assert event.payload == request.body
    assert event.trust.scheme == scheme.name
    assert (event.occurred_time.ToJsonString() if event.HasField("occurred_time") else "") == sent.occurred
    assert scheme.header not in event.headers
    if scheme.kind != "basic":
        spaced = deliver(sent.entry, request.body.replace(b"{", b"{ ", 1), headers)
        assert cause(judge(spaced)) == "SIGNATURE_INVALID"
    proof = request.headers[scheme.header]
    forged = {**headers, scheme.header: proof[:-4] + b"AAA" + proof[-1:]}
    assert cause(judge(deliver(sent.entry, request.body, forged))) == "SIGNATURE_INVALID"
    bare = {name: value for name, value in headers.items() if name != scheme.header}
    assert cause(judge(deliver(sent.entry, request.body, bare))) == "SIGNATURE_MISSING"


def test_linear_dates_its_deliveries_in_the_body(judging: Any, deliver: Any) -> None:
    judge = judging("linear")
    scheme = CATALOGUE["linear"].schemes[0]
    request = signed(scheme, b"x", now=int(time.time()) - 7)
    delivery = deliver("linear", request.body, {**request.headers, "linear-delivery": "l-1"})
    event = judge.opened(judge(delivery))
    assert event.delivery_id == "l-1"
    assert event.trust.clock_skew.ToTimedelta().total_seconds() == pytest.approx(7, abs=2)
    old = signed(scheme, b"x", now=int(time.time()) - 63)
    assert cause(judge(deliver("linear", old.body, old.headers))) == "TIMESTAMP_EXPIRED"
    assert CATALOGUE["linear"].answers.accepted == 200


def test_microsoft_graph_shows_its_secret_in_each_notification(judging: Any, deliver: Any) -> None:
    judge = judging("microsoft-graph")
    body = {"value": [{"clientState": SECRETS["raw"], "changeType": "updated"} for _ in range(2)]}
    event = judge.opened(judge(deliver("microsoft-graph", orjson.dumps(body), {})))
    assert (event.type, event.trust.scheme) == ("updated", "token")
    # Whoever may read events must not learn how to make one.
    assert orjson.loads(event.payload)["value"] == [{"clientState": "***", "changeType": "updated"}] * 2
    body["value"][1]["clientState"] = "another"
    assert cause(judge(deliver("microsoft-graph", orjson.dumps(body), {}))) == "SIGNATURE_INVALID"
    assert cause(judge(deliver("microsoft-graph", b'{"value":[]}', {}))) == "SIGNATURE_MISSING"


ACME = {
    "schemes": [
        {
            "kind": "hmac",
            "header": "X-Acme-Signature",
            "prefix": "sha512=",
            "algorithm": "sha512",
            "encoding": "base64url",
            "signed": "{timestamp}|{body}",
            "timestamp": {"header": "X-Acme-Time", "unit": "ms", "past": "1m"},
        }
    ],
    "delivery": {"id": ["header:X-Acme-Delivery"], "scope": ["body:account"]},
    "event": {
        "type": ["body:what.0.kind"],
        "otherwise": "nothing",
        "occurred": ["body:at"],
        "occurred_unit": "s",
    },
    "keep_headers": ["X-Acme-Region"],
    "content_types": ["application/json", "application/vnd.acme+json"],
    "max_body": "1KiB",
    "dedup": {"window": "2h", "occurrences": 3},
    "answers": {"accepted": 200},
}


def acme(body: bytes, at_ms: int) -> dict[str, str]:
    digest = hmac.new(SECRETS["raw"].encode(), b"%d|%s" % (at_ms, body), hashlib.sha512).digest()
    return {
        "x-acme-signature": "sha512=" + base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "x-acme-time": str(at_ms),
        "x-acme-delivery": "a-1",
        "x-acme-region": "eu",
        "content-type": "application/vnd.acme+json; v=1",
    }


def test_a_sender_that_a_user_described(
    make_judge: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_WEBHOOK_SECRET", SECRETS["raw"])
    judge = make_judge(SecuritySection.model_validate({"sources": {"acme": ACME}}))
    body = b'{"what":[{"kind":"rocket"}],"at":1767323045,"account":"x"}'
    now_ms = time.time_ns() // 1_000_000
    verdict = judge(deliver("acme", body, acme(body, now_ms)))
    event = judge.opened(verdict)
    assert (event.type, event.delivery_id, event.trust.scheme) == ("rocket", "a-1", "hmac-sha512")
    assert (dict(event.headers), event.content_type) == ({"x-acme-region": "eu"}, "application/vnd.acme+json")
    assert event.occurred_time.seconds == 1767323045
    assert (verdict.dedup_window.seconds, verdict.occurrences_allowed) == (7200, 3)
    source = judge.registry.find("", "acme")
    assert (source.kind, source.row.answers.accepted, source.max_body_bytes) == ("generic", 200, 1024)
    assert cause(judge(deliver("acme", body, acme(body, now_ms - 61_000)))) == "TIMESTAMP_EXPIRED"
    assert cause(judge(deliver("acme", body + b" ", acme(body, now_ms)))) == "SIGNATURE_INVALID"
    # What the described source replaces is gone: the generic signature is none here.
    assert cause(judge(deliver("acme", body, {"x-webhook-signature": "t=1,v1=00"}))) == "SIGNATURE_MISSING"


def test_a_part_of_an_entry_may_be_replaced(judging: Any) -> None:
    judge = judging("github", sources={"github": {"max_body": "2KiB", "event": {"otherwise": "hub"}}})
    source = judge.registry.find("", "github")
    assert (source.max_body_bytes, source.row.event.otherwise) == (2048, "hub")
    assert source.row.schemes == CATALOGUE["github"].schemes


def test_parts_that_do_not_fit_stop_the_start(judging: Any) -> None:
    sources = {"gitlab": {"keep_headers": ["X-Gitlab-Token"]}}
    with pytest.raises(
        catalogue.CatalogueError, match=r"^webhook\.security\.sources\.gitlab: .*x-gitlab-token"
    ):
        judging("gitlab", sources=sources)


def test_the_configured_header_serves_described_sources_too(judging: Any) -> None:
    sources = {"acme": {"schemes": [{"kind": "token", "header": "{signature_header}"}]}}
    judge = judging("github", sources=sources, signature_header="X-House-Signature")
    assert judge.registry.find("", "acme").row.schemes[0].header == "x-house-signature"
