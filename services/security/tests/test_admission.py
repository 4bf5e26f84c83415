"""Verdicts on whole deliveries, with a real keyring behind: what is let in, how it is named and sealed."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from webhook.security.v1.admission_pb2 import (
    OUTCOME_ADMITTED,
    OUTCOME_ANSWERED,
    OUTCOME_QUARANTINED,
    OUTCOME_REFUSED,
    Header,
    Producer,
    Verdict,
)
from webhook.security.v1.admission_pb2 import Refusal as Cause
from webhook_security.settings import DeduplicationSection, SecuritySection
from webhook_shared import telemetry
from webhook_shared.sealing.errors import Undecodable

ISSUE = orjson.dumps(
    {
        "action": "opened",
        "issue": {"number": 1, "updated_at": "2026-01-02T03:04:05Z"},
        "repository": {"id": 7},
    }
)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
CHALLENGE = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"


def cause(verdict: Verdict) -> str:
    assert verdict.outcome == OUTCOME_REFUSED
    assert not verdict.HasField("event")
    return Cause.Name(verdict.refusal).removeprefix("REFUSAL_")


def test_github(judge: Any, sign: Any, deliver: Any) -> None:
    delivery = deliver(
        "github",
        ISSUE,
        sign.github(ISSUE),
        traceparent=TRACEPARENT,
    )
    verdict = judge(delivery)
    assert verdict.outcome == OUTCOME_ADMITTED
    event = judge.opened(verdict)
    assert (event.tenant, event.tool, event.type, event.action) == ("default", "github", "issues", "opened")
    assert event.id == verdict.event.id
    assert event.payload == ISSUE
    assert event.content_type == "application/json"
    assert event.delivery_id == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert event.occurred_time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert event.received_time == delivery.received_time
    assert event.headers["x-github-event"] == "issues"
    assert "x-hub-signature-256" not in event.headers
    assert (event.trust.scheme, event.trust.key_id) == ("hmac-sha256", "env:GITHUB_WEBHOOK_SECRET")
    assert not event.trust.HasField("clock_skew")
    assert event.traceparent == verdict.event.traceparent == delivery.traceparent
    assert verdict.event.schema == 1
    assert verdict.event.type == "issues"
    assert len(verdict.dedup_key) == 24
    assert verdict.dedup_window.seconds == 3 * 24 * 3600
    assert verdict.occurrences_allowed == 1


def test_one_event_from_two_hooks_is_two_deliveries(judge: Any, sign: Any, deliver: Any) -> None:
    def key(**headers: str) -> str:
        return str(judge(deliver("github", ISSUE, {**sign.github(ISSUE), **headers})).dedup_key)

    assert key() == key()
    assert key() != key(**{"x-github-hook-id": "1"})
    assert key() != key(**{"x-github-delivery": "1"})


def test_without_an_id_the_body_is_the_name(judge: Any, sign: Any, deliver: Any) -> None:
    headers = sign.github(ISSUE)
    del headers["x-github-delivery"]
    verdict = judge(deliver("github", ISSUE, headers))
    assert judge.opened(verdict).delivery_id.startswith("sha256:")
    assert verdict.dedup_key == judge(deliver("github", ISSUE, headers)).dedup_key
    other = b'{"action":"closed"}'
    changed = {**headers, **sign.github(other)}
    del changed["x-github-delivery"]
    assert verdict.dedup_key != judge(deliver("github", other, changed)).dedup_key


def test_github_form(judge: Any, sign: Any, deliver: Any) -> None:
    body = b"payload=" + quote_plus(ISSUE).encode()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    verdict = judge(deliver("github", body, {**sign.github(body), **kind}))
    event = judge.opened(verdict)
    assert (event.action, event.payload, event.content_type) == ("opened", body, kind["content-type"])


@pytest.mark.parametrize("form", ["gitlab_token", "standard"])
def test_gitlab(make_judge: Any, sign: Any, deliver: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = orjson.dumps({"object_kind": "merge_request", "object_attributes": {"action": "open"}})
    if form == "standard":
        monkeypatch.setenv("GITLAB_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    judge = make_judge()
    event = judge.opened(judge(deliver("gitlab", body, getattr(sign, form)(body))))
    assert (event.type, event.action) == ("merge_request", "open")
    assert event.trust.scheme == ("token" if form == "gitlab_token" else "hmac-sha256")
    assert "x-gitlab-token" not in event.headers


def test_gitlab_prefers_the_signature(make_judge: Any, sign: Any, deliver: Any) -> None:
    security = SecuritySection.model_validate(
        {
            "signature_secrets": {
                "gitlab": ["env:GITLAB_WEBHOOK_SECRET", "env:STANDARD_WEBHOOKS_WEBHOOK_SECRET"]
            }
        }
    )
    judge = make_judge(security)
    both = {**sign.standard(b"{}"), **sign.gitlab_token(b"{}")}
    event = judge.opened(judge(deliver("gitlab", b"{}", both)))
    assert event.trust.scheme == "hmac-sha256"
    assert event.delivery_id == "msg_1"
    forged = {**both, "webhook-signature": "v1,AAAA"}
    assert cause(judge(deliver("gitlab", b"{}", forged))) == "SIGNATURE_INVALID"


def test_jira(judge: Any, sign: Any, deliver: Any) -> None:
    body = orjson.dumps(
        {
            "webhookEvent": "jira:issue_updated",
            "issue_event_type_name": "issue_commented",
            "timestamp": 1700000000500,
            "issue": {"self": "https://a.atlassian.net/rest/api/2/issue/1", "key": "A-1"},
        }
    )
    verdict = judge(deliver("jira", body, sign.jira(body)))
    event = judge.opened(verdict)
    assert (event.type, event.action) == ("jira:issue_updated", "issue_commented")
    assert event.occurred_time.ToMilliseconds() == 1700000000500
    elsewhere = body.replace(b"a.atlassian", b"b.atlassian")
    assert judge(deliver("jira", elsewhere, sign.jira(elsewhere))).dedup_key != verdict.dedup_key


def test_slack(judge: Any, sign: Any, deliver: Any) -> None:
    body = orjson.dumps(
        {
            "type": "event_callback",
            "event_id": "Ev1",
            "team_id": "T1",
            "event_time": 1700000000,
            "event": {"type": "message", "subtype": "bot_message"},
        }
    )
    at = time.time() - 7
    event = judge.opened(judge(deliver("slack", body, sign.slack(body, at=at))))
    assert (event.type, event.action, event.delivery_id) == ("message", "bot_message", "Ev1")
    assert event.occurred_time.seconds == 1700000000
    assert event.trust.clock_skew.ToTimedelta().total_seconds() == pytest.approx(7, abs=2)


def test_slack_shakes_hands_once_it_is_verified(judge: Any, sign: Any, deliver: Any) -> None:
    body = orjson.dumps({"type": "url_verification", "challenge": CHALLENGE})
    verdict = judge(deliver("slack", body, sign.slack(body)))
    assert verdict.outcome == OUTCOME_ANSWERED
    assert (verdict.answer.http_status, verdict.answer.content_type) == (200, "text/plain")
    assert verdict.answer.body == CHALLENGE.encode()
    assert not verdict.HasField("event")
    assert cause(judge(deliver("slack", body, sign.slack(body, secret="wrong")))) == "SIGNATURE_INVALID"
    for challenge in (None, "", "x" * 2000, {"a": 1}):
        odd = orjson.dumps({"type": "url_verification", "challenge": challenge})
        assert judge(deliver("slack", odd, sign.slack(odd))).outcome == OUTCOME_QUARANTINED


def test_standard_webhooks(judge: Any, sign: Any, deliver: Any) -> None:
    body = orjson.dumps({"type": "invoice.paid", "timestamp": "2026-01-02T03:04:05.5Z", "data": {}})
    event = judge.opened(judge(deliver("standard-webhooks", body, sign.standard(body))))
    assert (event.type, event.delivery_id) == ("invoice.paid", "msg_1")
    assert event.occurred_time.ToMilliseconds() == 1767323045500


@pytest.mark.parametrize("form", ["generic", "listed"])
def test_any_tool_that_signs(judge: Any, sign: Any, deliver: Any, form: str) -> None:
    body = orjson.dumps({"type": "build.finished", "action": "failed", "id": "not the event's"})
    headers = {**getattr(sign, form)(body), "x-webhook-id": "b-1"}
    event = judge.opened(judge(deliver("acme-ci", body, headers)))
    assert (event.type, event.action, event.delivery_id) == ("build.finished", "failed", "b-1")
    assert event.trust.HasField("clock_skew")
    for offset, expected in ((-301, "TIMESTAMP_EXPIRED"), (301, "TIMESTAMP_AHEAD")):
        old = getattr(sign, form)(body, at=time.time() + offset)
        assert cause(judge(deliver("acme-ci", body, old))) == expected
    assert cause(judge(deliver("acme-ci", body + b" ", headers))) == "SIGNATURE_INVALID"


def test_the_generic_header_can_be_another(make_judge: Any, sign: Any, deliver: Any) -> None:
    judge = make_judge(SecuritySection(signature_header="X-Acme-Sig"))
    headers = sign.generic(b"{}")
    assert cause(judge(deliver("acme-ci", b"{}", headers))) == "SIGNATURE_MISSING"
    headers["x-acme-sig"] = headers.pop("x-webhook-signature")
    assert judge(deliver("acme-ci", b"{}", headers)).outcome == OUTCOME_ADMITTED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: setattr(d, "tool", "nobody"), "UNKNOWN_SOURCE"),
        (lambda d: setattr(d, "tool", "../admin"), "UNKNOWN_SOURCE"),
        (lambda d: setattr(d, "tool", ""), "UNKNOWN_SOURCE"),
        (lambda d: setattr(d, "tenant", "nobody"), "UNKNOWN_SOURCE"),
        (lambda d: setattr(d, "method", "GET"), "METHOD"),
        (lambda d: setattr(d, "body", b"x" * (25 * 2**20 + 1)), "BODY_TOO_LARGE"),
        (lambda d: d.headers.pop(0), "CONTENT_TYPE"),
        (lambda d: setattr(d.headers[0], "value", b"text/plain"), "CONTENT_TYPE"),
        (lambda d: setattr(d.headers[0], "value", b"\xff\xfe"), "CONTENT_TYPE"),
        (lambda d: d.headers.append(Header(name="content-encoding", value=b"gzip")), "CONTENT_TYPE"),
        (lambda d: d.headers.append(Header(name="content-type", value=b"text/html")), "HEADER_MALFORMED"),
        (lambda d: d.headers.append(Header(name="x-hub-signature-256", value=b"x")), "HEADER_MALFORMED"),
        (lambda d: d.headers.append(Header(name="x-github-delivery", value=b"x")), "HEADER_MALFORMED"),
        (lambda d: d.headers.append(Header(name="x-github-event", value=b"x")), "HEADER_MALFORMED"),
        (lambda d: setattr(d.headers[-1], "value", b"sha256=" + b"0" * 64), "SIGNATURE_INVALID"),
        (lambda d: setattr(d.headers[-1], "value", b"\xff" * 71), "SIGNATURE_INVALID"),
        (lambda d: setattr(d.headers[-1], "value", b"x" * 8193), "HEADER_MALFORMED"),
        (lambda d: d.headers.pop(), "SIGNATURE_MISSING"),
    ],
)
def test_what_is_refused(judge: Any, sign: Any, deliver: Any, change: Any, expected: str) -> None:
    delivery = deliver("github", ISSUE, sign.github(ISSUE))
    change(delivery)
    verdict = judge(delivery)
    assert cause(verdict) == expected
    assert not verdict.HasField("retry_after")


def test_a_charset_does_not_matter(judge: Any, sign: Any, deliver: Any) -> None:
    headers = {**sign.github(ISSUE), "content-type": "Application/JSON; charset=utf-8"}
    event = judge.opened(judge(deliver("github", ISSUE, headers)))
    assert event.content_type == "application/json"


def test_headers_that_are_only_kept_may_repeat(judge: Any, sign: Any, deliver: Any) -> None:
    delivery = deliver("github", ISSUE, {**sign.github(ISSUE), "user-agent": "one"})
    delivery.headers.append(Header(name="user-agent", value=b"two"))
    assert judge.opened(judge(delivery)).headers["user-agent"] == "one"


def test_an_empty_body_is_nothing(judge: Any, sign: Any, deliver: Any) -> None:
    assert cause(judge(deliver("github", b"", sign.github(b"")))) == "BODY_EMPTY"
    assert cause(judge(deliver("github", b"", {}))) == "SIGNATURE_MISSING"


@pytest.mark.parametrize("body", [b"{", b'{"a":"\xff"}', b"[" * 2000 + b"]" * 2000])
def test_what_is_verified_but_unreadable_is_kept_sealed(
    judge: Any, sign: Any, deliver: Any, body: bytes
) -> None:
    verdict = judge(deliver("github", body, sign.github(body)))
    assert verdict.outcome == OUTCOME_QUARANTINED
    event = judge.opened(verdict)
    assert (event.payload, event.type, event.action) == (body, "issues", "")
    assert verdict.dedup_key
    assert cause(judge(deliver("github", body, sign.github(body, secret="wrong")))) == "SIGNATURE_INVALID"


def test_without_a_secret_the_sender_shall_come_again(
    make_judge: Any, sign: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret in ("", "  "):
        monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", secret)
        verdict = make_judge()(deliver("github", ISSUE, sign.github(ISSUE, secret=secret)))
        assert cause(verdict) == "SECRET_UNAVAILABLE"
        assert verdict.retry_after.seconds > 0


def test_rotation_loses_nothing(
    make_judge: Any, sign: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A, then A and B, then B: what is signed right passes at all times, and A not after its end."""
    start = 1_800_000_000.0
    monkeypatch.setenv("SECRET_A", "secret a")
    monkeypatch.setenv("SECRET_B", "secret b")
    secrets = [
        {"ref": "env:SECRET_A", "key_id": "a", "not_after": "2027-01-15T10:00:00Z"},
        {"ref": "env:SECRET_B", "key_id": "b", "not_before": "2027-01-15T08:00:10Z"},
    ]
    judge = make_judge(SecuritySection.model_validate({"signature_secrets": {"github": secrets}}))

    def verified_by(secret: str, at: float) -> str:
        judge.now = lambda: at
        verdict = judge(deliver("github", ISSUE, sign.github(ISSUE, secret=secret)))
        return judge.opened(verdict).trust.key_id if verdict.outcome == OUTCOME_ADMITTED else cause(verdict)

    assert [verified_by("secret a", start), verified_by("secret b", start)] == ["a", "SIGNATURE_INVALID"]
    assert [verified_by("secret a", start + 10), verified_by("secret b", start + 10)] == ["a", "b"]
    end = start + 2 * 3600
    assert [verified_by("secret a", end - 1), verified_by("secret b", end - 1)] == ["a", "b"]
    assert [verified_by("secret a", end), verified_by("secret b", end)] == ["SIGNATURE_INVALID", "b"]


def test_a_rotated_secret_works_without_a_restart(
    judge: Any, sign: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = deliver("github", ISSUE, sign.github(ISSUE, secret="fresh"))
    assert cause(judge(fresh)) == "SIGNATURE_INVALID"
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "fresh")
    judge.reread()
    assert judge(fresh).outcome == OUTCOME_ADMITTED


def test_the_guides_windows_count(make_judge: Any, sign: Any, deliver: Any) -> None:
    windows = DeduplicationSection.model_validate(
        {"window_configs": {"jira": {"duration": "10m", "max_size": 3}}}
    )
    verdict = make_judge(None, windows)(deliver("jira", b"{}", sign.jira(b"{}")))
    assert (verdict.dedup_window.seconds, verdict.occurrences_allowed) == (600, 3)


def test_tenants_are_apart(make_judge: Any, sign: Any, deliver: Any) -> None:
    security = SecuritySection.model_validate(
        {"tenants": {"acme": {"signature_secrets": {"github": "env:ACME_CI_WEBHOOK_SECRET"}}}}
    )
    judge = make_judge(security)
    theirs = sign.github(ISSUE, secret="the secret of acme")
    verdict = judge(deliver("github", ISSUE, theirs, tenant="acme"))
    assert judge.opened(verdict).tenant == "acme"
    ours = judge(deliver("github", ISSUE, sign.github(ISSUE)))
    assert ours.dedup_key != verdict.dedup_key
    assert cause(judge(deliver("github", ISSUE, theirs))) == "SIGNATURE_INVALID"
    assert cause(judge(deliver("jira", b"{}", sign.jira(b"{}"), tenant="acme"))) == "UNKNOWN_SOURCE"


def test_a_producer_signs_nothing(judge: Any, deliver: Any) -> None:
    delivery = deliver("inventory", b'{"type":"ignored"}', {}, tenant="acme")
    delivery.producer.CopyFrom(Producer(key_id="k-1", type="stock.changed", delivery_id="d-1"))
    event = judge.opened(judge(delivery))
    assert (event.tenant, event.tool, event.type, event.delivery_id) == (
        "acme",
        "inventory",
        "stock.changed",
        "d-1",
    )
    assert (event.trust.scheme, event.trust.key_id) == ("api-key", "k-1")
    delivery.producer.CopyFrom(Producer(key_id="k-1"))
    event = judge.opened(judge(delivery))
    assert event.type == "ignored"
    assert event.delivery_id.startswith("sha256:")
    delivery.body = b"x" * (10 * 2**20 + 1)
    assert cause(judge(delivery)) == "BODY_TOO_LARGE"
    delivery.tool = "../admin"
    assert cause(judge(delivery)) == "UNKNOWN_SOURCE"


def test_verification_can_be_switched_off(make_judge: Any, deliver: Any) -> None:
    judge = make_judge(SecuritySection(enable_signature_verification=False))
    event = judge.opened(judge(deliver("github", ISSUE, {})))
    assert (event.trust.scheme, event.trust.key_id) == ("none", "")
    assert cause(judge(deliver("nobody", ISSUE, {}))) == "UNKNOWN_SOURCE"


def test_one_that_can_not_be_judged_harms_no_other(judge: Any, sign: Any, deliver: Any) -> None:
    good = deliver("github", ISSUE, sign.github(ISSUE))
    unsealable = deliver("inventory", b"{}", {}, tenant="never-prepared")
    unsealable.producer.CopyFrom(Producer(key_id="k"))
    verdicts = judge.all([good, unsealable, good])
    assert [verdict.outcome for verdict in verdicts] == [OUTCOME_ADMITTED, OUTCOME_REFUSED, OUTCOME_ADMITTED]
    assert cause(verdicts[1]) == "INTERNAL"
    assert verdicts[1].retry_after.seconds > 0


def test_only_sampled_deliveries_are_traced(
    judge: Any, sign: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(telemetry._State, "tracing", True)
    sampled = deliver("github", ISSUE, sign.github(ISSUE), traceparent=TRACEPARENT[:-2] + "01")
    forged = deliver("github", ISSUE, sign.github(b""), traceparent=TRACEPARENT[:-2] + "01")
    judge.all([deliver("github", ISSUE, sign.github(ISSUE), traceparent=TRACEPARENT), sampled, forged])
    found = [(span.name, dict(span.attributes or {})) for span in spans.get_finished_spans()]
    # Who is not believed is done with before the others are read.
    assert found == [
        ("security.admit", {"tool": "github", "outcome": "OUTCOME_REFUSED"}),
        ("security.admit", {"tool": "github", "outcome": "OUTCOME_ADMITTED"}),
    ]
    assert all(span.end_time > span.start_time for span in spans.get_finished_spans())
    parents = {span.parent.span_id for span in spans.get_finished_spans() if span.parent}
    assert parents == {int(TRACEPARENT.split("-")[2], 16)}


def test_a_large_batch_is_judged_in_portions_and_in_order(judge: Any, sign: Any, deliver: Any) -> None:
    batch = []
    for number in range(200):
        body = b'{"action":"a%d","pad":"%s"}' % (number, b"x" * (number % 3 * 40_000))
        batch.append(deliver("github", body, sign.github(body)))
    actions = [judge.opened(verdict).action for verdict in judge.all(batch)]
    assert actions == [f"a{number}" for number in range(200)]


def test_a_seal_is_bound_to_its_event(judge: Any, sign: Any, deliver: Any) -> None:
    one, other = (judge(deliver("github", ISSUE, sign.github(ISSUE))).event for _ in range(2))
    assert one.id != other.id
    assert ISSUE not in one.sealed
    with pytest.raises(Undecodable):
        judge.keyring.open(one.tenant, one.sealed, "event", other.id)
