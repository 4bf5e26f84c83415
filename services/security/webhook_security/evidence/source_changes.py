"""Notices what has become of the sources, however it came about: file, registry, rotation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from webhook.security.v1.audit_pb2 import AUDIT_CHANGE_KIND_SOURCES, AUDIT_CHANGE_KIND_STARTED
from webhook_shared.audit.chain import Seal

from webhook_security.catalogue import Row
from webhook_security.evidence.audit import Audit
from webhook_security.registry.sources import Registry, Source
from webhook_security.verification.verify import Check

EVERY_S = 1.0


class _Seen(NamedTuple):
    source: Source
    checks: Sequence[Check]
    fingerprint: str
    secrets: str


class SourceChanges:
    """Puts on record that a source came, went, or verifies by other secrets or within other limits.

    Args:
        registry: The sources.
        audit: Where to.
        seal: Makes fingerprints, so that a record tells that a secret changed and nothing of it.
        configuration: What else the process was started with; its fingerprint stands in the first record.
    """

    def __init__(self, registry: Registry, audit: Audit, seal: Seal, configuration: str) -> None:
        self._registry, self._audit, self._seal = registry, audit, seal
        self._rows: dict[int, tuple[Row, str]] = {}
        self._seen = self._now({})
        self._audit.changed(AUDIT_CHANGE_KIND_STARTED, [], self._digest(configuration))

    async def keep(self, every_s: float = EVERY_S) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(every_s)
            self.look()

    def look(self) -> None:
        """Put on record what is different from the last time."""
        before, now = self._seen, self._now(self._seen)
        self._seen = now
        names = [f"{route} came ({now[route].secrets})" for route in sorted(now.keys() - before.keys())]
        names += [f"{route} went" for route in sorted(before.keys() - now.keys())]
        names += [
            f"{route} changed ({now[route].secrets})"
            for route in sorted(now.keys() & before.keys())
            if now[route].fingerprint != before[route].fingerprint
        ]
        if names:
            self._audit.changed(AUDIT_CHANGE_KIND_SOURCES, names, self._digest(""))

    def _now(self, before: Mapping[str, _Seen]) -> dict[str, _Seen]:
        now = {}
        for source in self._registry.sources():
            route = f"{source.tenant}/{source.tool}"
            seen = before.get(route)
            if seen is None or seen.source is not source or seen.checks is not source.checks:
                secrets = ", ".join(secret.key_id for secret in source.secrets) or "no secret"
                seen = _Seen(source, source.checks, self._fingerprint(source), secrets)
            now[route] = seen
        return now

    def _fingerprint(self, source: Source) -> str:
        keys = [(check.verifier.scheme.name, tuple(check.keys)) for check in source.checks]
        limits = (source.kind, source.max_body_bytes, source.window_s, source.occurrences)
        return self._seal.fingerprint(
            repr((limits, self._spelled(source.row), source.event_types, keys)).encode()
        )

    def _spelled(self, row: Row) -> str:
        """A catalogue entry in words; thousands of sources may share one."""
        known = self._rows.get(id(row))
        if known is None or known[0] is not row:
            known = self._rows[id(row)] = (row, repr(row))
        return known[1]

    def _digest(self, configuration: str) -> str:
        told = sorted((route, seen.fingerprint) for route, seen in self._seen.items())
        return self._seal.fingerprint(repr((configuration, told)).encode())
