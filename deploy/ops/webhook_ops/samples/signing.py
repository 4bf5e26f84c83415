"""Signs a body as each sender does, with the headers that it sends along.

Written from the senders' documentation, apart from the verifier: one checks the other.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping

Headers = list[tuple[str, str]]

_STANDARD_PREFIX = "whsec_"
# One hook each, as if set up once.
_GITHUB_HOOK_ID = "448120937"
_GITHUB_REPOSITORY_ID = "734518206"
_GITLAB_HOOK_UUID = "0e6b3f3a-6c27-4c57-9b5d-52b1c5a1d8a4"
# GitLab names its types twice: in the body ("merge_request") and, for people, in the header.
_GITLAB_HOOKS: Mapping[str, str] = {
    "build": "Job Hook",
    "deployment": "Deployment Hook",
    "emoji": "Emoji Hook",
    "issue": "Issue Hook",
    "merge_request": "Merge Request Hook",
    "note": "Note Hook",
    "pipeline": "Pipeline Hook",
    "push": "Push Hook",
    "release": "Release Hook",
    "tag_push": "Tag Push Hook",
    "wiki_page": "Wiki Page Hook",
}


def sign(
    tool: str, body: bytes, secret: str, *, event_type: str, delivery_id: str, now: float
) -> list[tuple[str, str]]:
    """The request headers with which the tool's sender would deliver the body.

    Args:
        tool: "github", "gitlab", "jira", "slack", "standard-webhooks"; any other signs generically.
        body: The body exactly as it is sent.
        secret: The shared secret. One of GitLab's that begins with "whsec_" signs, another is the token.
        event_type: The sender's event type, for senders that name it in a header.
        delivery_id: The sender's id of the delivery, for senders that name it in a header.
        now: Unix seconds, for senders that sign the time.

    Raises:
        ValueError: A "whsec_" secret that is not base64.
    """
    return _SENDERS.get(tool, _generic)(body, secret, event_type, delivery_id, int(now))


def _github(body: bytes, secret: str, event_type: str, delivery_id: str, _now: int) -> Headers:
    return [
        ("Accept", "*/*"),
        ("Content-Type", "application/json"),
        ("User-Agent", "GitHub-Hookshot/6f2a1c9"),
        ("X-GitHub-Delivery", delivery_id),
        ("X-GitHub-Event", event_type),
        ("X-GitHub-Hook-ID", _GITHUB_HOOK_ID),
        ("X-GitHub-Hook-Installation-Target-ID", _GITHUB_REPOSITORY_ID),
        ("X-GitHub-Hook-Installation-Target-Type", "repository"),
        ("X-Hub-Signature-256", f"sha256={_hex(secret, body)}"),
    ]


def _gitlab(body: bytes, secret: str, event_type: str, delivery_id: str, now: int) -> Headers:
    headers = [
        ("Content-Type", "application/json"),
        ("User-Agent", "GitLab/18.6.0"),
        ("Idempotency-Key", delivery_id),
        ("X-Gitlab-Event", _GITLAB_HOOKS.get(event_type, "System Hook")),
        ("X-Gitlab-Event-UUID", delivery_id),
        ("X-Gitlab-Instance", "https://gitlab.com"),
        ("X-Gitlab-Webhook-UUID", _GITLAB_HOOK_UUID),
    ]
    if secret.startswith(_STANDARD_PREFIX):
        return headers + _standard_signature(body, secret, delivery_id, now)
    return [*headers, ("X-Gitlab-Token", secret)]


def _jira(body: bytes, secret: str, _event_type: str, delivery_id: str, _now: int) -> Headers:
    return [
        ("Content-Type", "application/json; charset=utf-8"),
        ("User-Agent", "Atlassian Webhook HTTP Client"),
        ("X-Atlassian-Webhook-Flow", "Primary"),
        ("X-Atlassian-Webhook-Identifier", delivery_id),
        ("X-Hub-Signature", f"sha256={_hex(secret, body)}"),
    ]


def _slack(body: bytes, secret: str, _event_type: str, _delivery_id: str, now: int) -> Headers:
    return [
        ("Accept", "*/*"),
        ("Content-Type", "application/json"),
        ("User-Agent", "Slackbot 1.0 (+https://api.slack.com/robots)"),
        ("X-Slack-Request-Timestamp", str(now)),
        ("X-Slack-Signature", f"v0={_hex(secret, b'v0:%d:%s' % (now, body))}"),
    ]


def _standard(body: bytes, secret: str, _event_type: str, delivery_id: str, now: int) -> Headers:
    return [
        ("Content-Type", "application/json"),
        ("User-Agent", "webhook-samples/1.0"),
        *_standard_signature(body, secret, delivery_id, now),
    ]


def _generic(body: bytes, secret: str, event_type: str, delivery_id: str, now: int) -> Headers:
    return [
        ("Content-Type", "application/json"),
        ("User-Agent", "webhook-samples/1.0"),
        ("X-Webhook-Event", event_type),
        ("X-Webhook-Id", delivery_id),
        ("X-Webhook-Timestamp", str(now)),
        ("X-Webhook-Signature", _hex(secret, b"%d.%s" % (now, body))),
    ]


_SENDERS: Mapping[str, Callable[[bytes, str, str, str, int], Headers]] = {
    "github": _github,
    "gitlab": _gitlab,
    "jira": _jira,
    "slack": _slack,
    "standard-webhooks": _standard,
}


def _hex(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _standard_signature(body: bytes, secret: str, delivery_id: str, now: int) -> Headers:
    try:
        key = base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    except binascii.Error:
        # The text of the error would quote the secret.
        raise ValueError("the secret is not base64 after its whsec_ prefix") from None
    signed = b"%s.%d.%s" % (delivery_id.encode(), now, body)
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return [
        ("webhook-id", delivery_id),
        ("webhook-timestamp", str(now)),
        ("webhook-signature", f"v1,{signature}"),
    ]
