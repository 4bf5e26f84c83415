"""Which request targets are sources, and how each is to be treated."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from webhook_gateway import metrics
from webhook_gateway.answers import SourceAnswers, method_not_allowed

DEFAULT_TENANT = "default"
ROUTE_NAME = "[a-z0-9][a-z0-9_-]{0,62}"
_PATH = re.compile(rf"/webhooks/(?:(?P<tenant>{ROUTE_NAME})/)?(?P<tool>{ROUTE_NAME})".encode())


@dataclass(frozen=True)
class Policy:
    """What security lets the edge know of one source.

    Attributes:
        tenant: Empty means the default one.
        content_types: Media types in lower case, without parameters; none means any.
        methods: "POST", "GET".
        sender_retries: Whether it sends again what it could not deliver.
    """

    tenant: str
    tool: str
    max_body_bytes: int
    content_types: frozenset[str]
    methods: tuple[str, ...]
    accepted_status: int
    duplicate_status: int
    sender_retries: bool = True


class Route:
    """One source, with everything made ready that does not depend on the request."""

    __slots__ = (
        "answers",
        "content_types",
        "duplicates",
        "failed",
        "lost",
        "max_body_bytes",
        "methods",
        "not_allowed",
        "received",
        "tenant",
        "tool",
    )

    def __init__(self, policy: Policy) -> None:
        self.tenant = policy.tenant or DEFAULT_TENANT
        self.tool = policy.tool
        self.max_body_bytes = policy.max_body_bytes
        self.content_types = frozenset(name.encode("latin-1") for name in policy.content_types)
        self.methods = frozenset(name.encode("latin-1") for name in policy.methods)
        self.not_allowed = method_not_allowed(policy.methods)
        self.answers = SourceAnswers(policy.accepted_status, policy.duplicate_status)
        self.received = metrics.events_received.labels(self.tool)
        self.failed = metrics.events_failed.labels(self.tool)
        self.lost = None if policy.sender_retries else metrics.lost.labels(self.tool)
        self.duplicates = metrics.duplicates_detected.labels(self.tool)

    def takes(self, content_type: bytes) -> bool:
        """Whether the source takes this content type; parameters and case don't matter."""
        if content_type in self.content_types or not self.content_types:
            return True
        return content_type.partition(b";")[0].strip().lower() in self.content_types


class Routes:
    """The sources that exist now; replaced as a whole when security says that something changed."""

    def __init__(self) -> None:
        self._by_path: dict[bytes, Route] = {}
        self.known = False

    def replace(self, policies: Iterable[Policy]) -> None:
        """Take these sources instead of those before."""
        by_path: dict[bytes, Route] = {}
        for policy in policies:
            route = Route(policy)
            by_path[f"/webhooks/{route.tenant}/{route.tool}".encode()] = route
            if route.tenant == DEFAULT_TENANT:
                by_path[f"/webhooks/{route.tool}".encode()] = route
        self._by_path = by_path
        self.known = True

    def find(self, path: bytes) -> Route | None:
        """The source at this raw path; nothing is decoded, so nothing hides behind an escape."""
        return self._by_path.get(path)

    def find_tool(self, tenant: str, tool: str) -> Route | None:
        """The source of this name."""
        return self._by_path.get(f"/webhooks/{tenant}/{tool}".encode())


def is_webhook_path(path: bytes) -> bool:
    """Whether a raw path could be a source's, known or not."""
    return _PATH.fullmatch(path) is not None
