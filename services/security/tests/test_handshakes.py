"""Handshakes: who asks in the right way is answered, and nobody learns to forge by asking."""

from __future__ import annotations

import base64
import hmac
import time
from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from webhook.security.v1.admission_pb2 import OUTCOME_ANSWERED, OUTCOME_REFUSED, Delivery, Verdict
from webhook.security.v1.admission_pb2 import Refusal as Cause
from webhook_security import catalogue
from webhook_security.payloads.reader import Reader, Unusable
from webhook_security.servicer import edge_policy
from webhook_security.settings import SecuritySection
from webhook_security.verification.handshakes import Handshake, HandshakeRow, Reply

from services.security.tests.proofs import SECRET, checks_of

CATALOGUE = catalogue.load("X-Webhook-Signature")
TWITTER, GRAPH = CATALOGUE["twitter"], CATALOGUE["microsoft-graph"]
GRAPH_TOKEN = "Validation: Testing client application reachability for subscription Request-Id: 522a8e7e"


@pytest.fixture
def judge(make_judge: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("THE_SECRET", SECRET)
    names = ("twitter", "microsoft-graph", "github", "zoomish")
    zoomish = {
        "handshake": {
            "when": "body:event",
            "equals": "endpoint.url_validation",
            "reply": "body:payload.plainToken",
            "signature": {"encoding": "hex"},
            "body": '{"plainToken":"{token}","encryptedToken":"{signature}"}',
            "content_type": "application/json",
        }
    }
    security = {"signature_secrets": dict.fromkeys(names, "env:THE_SECRET"), "sources": {"zoomish": zoomish}}
    return make_judge(SecuritySection.model_validate(security))


def asked(tool: str, query: bytes, method: str = "GET", body: bytes = b"") -> Delivery:
    return Delivery(tool=tool, method=method, query=query, body=body, peer_address="203.0.113.7")


def cause(verdict: Verdict) -> str:
    assert verdict.outcome == OUTCOME_REFUSED
    return Cause.Name(verdict.refusal).removeprefix("REFUSAL_")


def test_twitter_by_get(judge: Any) -> None:
    verdict = judge(asked("twitter", b"crc_token=uzwcfYtzr9&nonce=1"))
    assert verdict.outcome == OUTCOME_ANSWERED
    assert (verdict.answer.http_status, verdict.answer.content_type) == (200, "application/json")
    digest = hmac.digest(SECRET.encode(), b"uzwcfYtzr9", "sha256")
    assert orjson.loads(verdict.answer.body) == {
        "response_token": "sha256=" + base64.b64encode(digest).decode()
    }
    assert not verdict.HasField("event")


@pytest.mark.parametrize(
    ("query", "method", "body", "expected"),
    [
        (b"", "GET", b"", "METHOD"),
        (b"crc_token=", "GET", b"", "METHOD"),
        (b"crc_token=a&crc_token=b", "GET", b"", "METHOD"),
        (b"other=a", "GET", b"", "METHOD"),
        (b"crc_token=a", "GET", b"{}", "METHOD"),
        (b"crc_token=\xff", "GET", b"", "METHOD"),
        (b"crc_token=%ff", "GET", b"", "METHOD"),
        (b"&".join([b"a=1"] * 17) + b"&crc_token=a", "GET", b"", "METHOD"),
        (b"crc_token=a", "HEAD", b"", "METHOD"),
        (b"crc_token=a", "PUT", b"", "METHOD"),
        (b"crc_token=%7B%7D", "GET", b"", "HEADER_MALFORMED"),
        (b"crc_token=" + b"a" * 257, "GET", b"", "HEADER_MALFORMED"),
    ],
)
def test_twitter_otherwise(judge: Any, query: bytes, method: str, body: bytes, expected: str) -> None:
    assert cause(judge(asked("twitter", query, method, body))) == expected


def test_a_source_without_a_handshake_takes_no_get(judge: Any) -> None:
    assert cause(judge(asked("github", b"crc_token=a"))) == "METHOD"
    assert cause(judge(asked("microsoft-graph", b"validationToken=a"))) == "METHOD"


READ_AS_EVENT = Reader([("a",)])


@settings(max_examples=40, deadline=None)
@given(token=st.text(max_size=40) | st.sampled_from(['{"a":1}', "[1]", '"x"', "1", "null"]))
def test_what_is_signed_for_a_stranger_is_never_an_event(token: str) -> None:
    assert TWITTER.handshake
    reply = Handshake(TWITTER.handshake).reply(token, checks_of(TWITTER.schemes[0]), 0.0)
    if isinstance(reply, Reply):
        assert set(orjson.loads(reply.body)) == {"response_token"}
        with pytest.raises(Unusable):
            READ_AS_EVENT.read(token.encode())


def test_graph_by_post(judge: Any) -> None:
    query = b"validationToken=" + quote_plus(GRAPH_TOKEN).encode()
    verdict = judge(asked("microsoft-graph", query, "POST"))
    assert verdict.outcome == OUTCOME_ANSWERED
    assert (verdict.answer.http_status, verdict.answer.content_type) == (200, "text/plain")
    assert verdict.answer.body == GRAPH_TOKEN.encode()


@pytest.mark.parametrize(
    "token", [b"%3Cscript%3E", b"a%00b", b"%0d%0aSet-Cookie:a", b"caf%C3%A9", b"a" * 1025]
)
def test_only_plain_text_is_echoed(judge: Any, token: bytes) -> None:
    assert cause(judge(asked("microsoft-graph", b"validationToken=" + token, "POST"))) == "HEADER_MALFORMED"


def test_a_notification_with_a_token_in_its_query_is_no_handshake(judge: Any, deliver: Any) -> None:
    delivery = deliver(
        "microsoft-graph", b'{"value":[{"clientState":"guess"}]}', {}, query=b"validationToken=a"
    )
    assert cause(judge(delivery)) == "SIGNATURE_INVALID"
    plain = deliver("microsoft-graph", b"{}", {"content-type": "text/plain"})
    assert cause(judge(plain)) == "CONTENT_TYPE"


def test_a_signed_answer_to_a_verified_request(judge: Any, deliver: Any, sign: Any) -> None:
    body = orjson.dumps(
        {"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}}
    )
    verdict = judge(deliver("zoomish", body, sign.generic(body, secret=SECRET, at=time.time())))
    assert verdict.outcome == OUTCOME_ANSWERED
    assert orjson.loads(verdict.answer.body) == {
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
        "encryptedToken": hmac.digest(SECRET.encode(), b"qgg8vlvZRS6UYooatFL8Aw", "sha256").hex(),
    }
    assert cause(judge(deliver("zoomish", body, sign.generic(body, secret="wrong")))) == "SIGNATURE_INVALID"


def test_the_edge_is_told_what_handshakes_need(judge: Any) -> None:
    policies = {
        tool: edge_policy(judge.registry.find("", tool)) for tool in ("twitter", "microsoft-graph", "github")
    }
    assert list(policies["twitter"].methods) == ["POST", "GET"]
    assert list(policies["microsoft-graph"].methods) == list(policies["github"].methods) == ["POST"]
    assert list(policies["microsoft-graph"].content_types) == ["application/json", "text/plain"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "either"),
        ({"query": "t", "when": "body:a", "equals": "b", "reply": "body:c"}, "either"),
        ({"when": "body:a", "reply": "body:c"}, "either"),
        ({"when": "body:a", "equals": "b", "reply": "body:c", "method": "GET"}, "in the query"),
        ({"query": "t", "body": "nothing"}, "must hold"),
        ({"query": "t", "body": "{secret}"}, "must hold"),
        ({"query": "t", "body": "{signature}"}, "go together"),
        ({"query": "t", "signature": {}}, "go together"),
        ({"query": "t", "content_type": "text/html"}, "content_type"),
    ],
)
def test_a_handshake_that_makes_no_sense(row: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        HandshakeRow.model_validate(row)


def test_without_a_secret_nothing_is_signed(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_SECRET")
    judge.reread()
    assert cause(judge(asked("twitter", b"crc_token=a"))) == "SECRET_UNAVAILABLE"
