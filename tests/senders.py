"""Senders as the outside world has them: each signs as its own documentation says, and by no code of ours.

What a sender makes is a `Delivery`: path, headers in wire order, body. Tests change deliveries, never
signatures, so that what is refused is refused for the one thing that is wrong with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

JSON = "application/json"

Payload = Mapping[str, Any] | bytes
HeaderValue = str | bytes


@dataclass(frozen=True)
class Delivery:
    """One webhook request.

    Attributes:
        path: As it goes over the wire: "/webhooks/github".
        headers: In wire order; a name may stand in it more than once.
        body: As signed.
    """

    path: str
    headers: tuple[tuple[str, HeaderValue], ...]
    body: bytes

    def without(self, name: str) -> Delivery:
        """Without a header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() != name.lower()))

    def having(self, name: str, *values: HeaderValue) -> Delivery:
        """With these values of a header, each on a line of its own, instead of what it had."""
        return replace(self, headers=(*self.without(name).headers, *((name, value) for value in values)))

    def saying(self, body: bytes) -> Delivery:
        """With another body under the same signature."""
        return replace(self, body=body)

    def at(self, path: str) -> Delivery:
        """The same request to another path."""
        return replace(self, path=path)

    def value(self, name: str) -> str:
        """The value of a header that it has once."""
        (value,) = (value for known, value in self.headers if known.lower() == name.lower())
        assert isinstance(value, str)
        return value


def encoded(payload: Payload) -> bytes:
    """The bytes of a payload, with a space after each colon so that nobody gets away with re-encoding it."""
    if isinstance(payload, bytes):
        return payload
    return json.dumps(payload, separators=(",", ": "), ensure_ascii=False).encode()


def _hex(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def _unique(delivery_id: str) -> str:
    return delivery_id or str(uuid.uuid4())


@dataclass(frozen=True)
class GitHub:
    """docs.github.com: X-Hub-Signature-256 over the body."""

    secret: str
    path: str = "/webhooks/github"

    def deliver(self, event: str, payload: Payload, *, delivery_id: str = "") -> Delivery:
        """One delivery; the id stays the same when GitHub delivers again."""
        body = encoded(payload)
        headers = (
            ("Content-Type", JSON),
            ("User-Agent", "GitHub-Hookshot/b1a2c3d"),
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", _unique(delivery_id)),
            ("X-GitHub-Hook-ID", "292430182"),
            ("X-Hub-Signature-256", f"sha256={_hex(self.secret, body)}"),
        )
        return Delivery(self.path, headers, body)


@dataclass(frozen=True)
class GitLab:
    """docs.gitlab.com: X-Gitlab-Token, a shared secret in the clear."""

    token: str
    path: str = "/webhooks/gitlab"

    def deliver(self, event: str, payload: Payload, *, delivery_id: str = "") -> Delivery:
        """One delivery; `event` as the header says it: "Merge Request Hook"."""
        headers = (
            *_gitlab_headers(event, _unique(delivery_id)),
            ("X-Gitlab-Token", self.token),
        )
        return Delivery(self.path, headers, encoded(payload))


@dataclass(frozen=True)
class SigningGitLab:
    """docs.gitlab.com: a signing token, as Standard Webhooks has it."""

    secret: str
    path: str = "/webhooks/gitlab"

    def deliver(
        self, event: str, payload: Payload, *, delivery_id: str = "", sent_s: float | None = None
    ) -> Delivery:
        """One delivery; `sent_s` is Unix time, now where it is None."""
        body, identity = encoded(payload), _unique(delivery_id)
        headers = (
            *_gitlab_headers(event, identity),
            *_standard_headers(self.secret, identity, body, sent_s),
        )
        return Delivery(self.path, headers, body)


def _gitlab_headers(event: str, delivery_id: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Content-Type", JSON),
        ("User-Agent", "GitLab/18.6.0"),
        ("Idempotency-Key", delivery_id),
        ("X-Gitlab-Event", event),
        ("X-Gitlab-Event-UUID", delivery_id),
        ("X-Gitlab-Webhook-UUID", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
        ("X-Gitlab-Instance", "https://gitlab.example.com"),
    )


@dataclass(frozen=True)
class Jira:
    """Atlassian: X-Hub-Signature with SHA-256 over the body."""

    secret: str
    path: str = "/webhooks/jira"

    def deliver(self, payload: Payload, *, delivery_id: str = "") -> Delivery:
        """One delivery; Jira names the event in the body alone."""
        body = encoded(payload)
        headers = (
            ("Content-Type", "application/json; charset=UTF-8"),
            ("User-Agent", "Atlassian HttpClient"),
            ("X-Atlassian-Webhook-Identifier", _unique(delivery_id)),
            ("X-Hub-Signature", f"sha256={_hex(self.secret, body)}"),
        )
        return Delivery(self.path, headers, body)


@dataclass(frozen=True)
class Slack:
    """docs.slack.dev: v0 over "v0:timestamp:body"; the id is the body's event_id."""

    secret: str
    path: str = "/webhooks/slack"

    def deliver(self, payload: Payload, *, sent_s: float | None = None) -> Delivery:
        """One delivery; `sent_s` is Unix time, now where it is None."""
        body, timestamp = encoded(payload), _seconds(sent_s)
        signature = _hex(self.secret, b"v0:%s:%s" % (timestamp.encode(), body))
        headers = (
            ("Content-Type", JSON),
            ("User-Agent", "Slackbot 1.0 (+https://api.slack.com/robots)"),
            ("X-Slack-Request-Timestamp", timestamp),
            ("X-Slack-Signature", f"v0={signature}"),
        )
        return Delivery(self.path, headers, body)


@dataclass(frozen=True)
class StandardWebhooks:
    """standardwebhooks.com: base64 over "id.timestamp.body", under a whsec_ secret."""

    secret: str
    path: str = "/webhooks/standard-webhooks"

    def deliver(self, payload: Payload, *, delivery_id: str = "", sent_s: float | None = None) -> Delivery:
        """One delivery; `sent_s` is Unix time, now where it is None."""
        body, identity = encoded(payload), delivery_id or f"msg_{uuid.uuid4().hex}"
        headers = (("Content-Type", JSON), *_standard_headers(self.secret, identity, body, sent_s))
        return Delivery(self.path, headers, body)


def _standard_headers(
    secret: str, identity: str, body: bytes, sent_s: float | None
) -> tuple[tuple[str, str], ...]:
    timestamp = _seconds(sent_s)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message = b"%s.%s.%s" % (identity.encode(), timestamp.encode(), body)
    signature = base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
    return (
        ("webhook-id", identity),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", f"v1,{signature}"),
    )


@dataclass(frozen=True)
class AnyTool:
    """A tool without a name of its own: X-Webhook-Signature, "t=<seconds>,v1=<hex of t.body>"."""

    tool: str
    secret: str

    def deliver(
        self, event: str, payload: Payload, *, delivery_id: str = "", sent_s: float | None = None
    ) -> Delivery:
        """One delivery; `sent_s` is Unix time, now where it is None."""
        body, timestamp = encoded(payload), _seconds(sent_s)
        signature = _hex(self.secret, b"%s.%s" % (timestamp.encode(), body))
        headers = (
            ("Content-Type", JSON),
            ("X-Webhook-ID", _unique(delivery_id)),
            ("X-Webhook-Event", event),
            ("X-Webhook-Signature", f"t={timestamp},v1={signature}"),
        )
        return Delivery(f"/webhooks/{self.tool}", headers, body)


def _seconds(sent_s: float | None) -> str:
    return str(int(time.time() if sent_s is None else sent_s))
