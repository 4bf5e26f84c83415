"""Comments on GitHub issues, of GitHub's own shape and size."""

from __future__ import annotations

import hashlib
import hmac
import uuid

import orjson

from tests.bench.consume.corpus import EXAMPLES

PATH = "/webhooks/github"
REPOSITORY = "bench/steady"
SAMPLED = "bench/sampled"
# A repository's life: so many issues are talked about at a time, and each gets so many comments.
ACTIVE_ISSUES = 200
COMMENTS_EACH = 100
_TEXTS = (
    "I can reproduce this on the staging cluster since the last deployment.",
    "The build is green again, could somebody have another look at it?",
    "This needs a migration, see the discussion in the other pull request.",
    "Reverting fixed the timeouts for us; the pool was exhausted by the retries.",
)


class Talk:
    """Comments, one after another, each with an id of its own.

    Args:
        secret: Of the sender.
        authority: host:port of the edge.

    Raises:
        FileNotFoundError: The examples are not installed (`make node`).
    """

    def __init__(self, secret: str, authority: str) -> None:
        examples = {entry["name"]: entry["examples"] for entry in orjson.loads(EXAMPLES.read_bytes())}
        self._example = max(examples["issue_comment"], key=lambda example: len(orjson.dumps(example)))
        self._secret = secret.encode()
        self._authority = authority
        self._written = 0

    def next(self) -> bytes:
        """The next comment in the busy repository, as an HTTP request."""
        generation, at = divmod(self._written, ACTIVE_ISSUES * COMMENTS_EACH)
        return self._request(REPOSITORY, 1 + generation * ACTIVE_ISSUES + at % ACTIVE_ISSUES)

    def sample(self) -> tuple[bytes, str]:
        """A comment that is the first of its issue, and the context that will hold it."""
        number = self._written + 1
        return self._request(SAMPLED, number), f"github:{SAMPLED}:issue:{number}"

    def _request(self, repository: str, number: int) -> bytes:
        self._written += 1
        body = self._body(repository, number)
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        head = (
            f"POST {PATH} HTTP/1.1\r\n"
            f"Host: {self._authority}\r\n"
            "User-Agent: GitHub-Hookshot/044aadd\r\n"
            "Content-Type: application/json\r\n"
            f"X-GitHub-Delivery: {uuid.uuid4()}\r\n"
            "X-GitHub-Event: issue_comment\r\n"
            "X-GitHub-Hook-ID: 292430182\r\n"
            f"X-Hub-Signature-256: sha256={signature}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def _body(self, repository: str, number: int) -> bytes:
        event = self._example
        comment = event["comment"] | {
            "id": self._written,
            "body": f"{_TEXTS[self._written % len(_TEXTS)]} ({self._written})",
        }
        issue = event["issue"] | {"number": number, "title": f"Issue {number} of the benchmark"}
        owner, _, name = repository.partition("/")
        whose = event["repository"] | {
            "full_name": repository,
            "name": name,
            "owner": event["repository"]["owner"] | {"login": owner},
        }
        return orjson.dumps(event | {"comment": comment, "issue": issue, "repository": whose})
