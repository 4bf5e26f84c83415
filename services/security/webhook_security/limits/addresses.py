"""Allow-lists: which addresses a source's sender sends from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from prometheus_client import Counter
from webhook.event.v1.event_pb2 import (
    ADDRESS_VERDICT_LISTED,
    ADDRESS_VERDICT_UNLISTED,
    ADDRESS_VERDICT_UNSPECIFIED,
    AddressVerdict,
)
from webhook_shared.networks import Networks, parse_address
from webhook_shared.redis import Client
from webhook_shared.tasks import ended

from webhook_security import metrics
from webhook_security.limits.address_origins import FILE_REREAD_S, Origin
from webhook_security.settings import AllowedSection, SecuritySection

_PEERS_REMEMBERED = 4096


class AllowList:
    """The addresses of one sender.

    Args:
        tool: What metrics call it.
        fixed: The networks that stand in the configuration.
        origins: Those that are read from elsewhere.
        enforced: Whether others are refused.
    """

    def __init__(self, tool: str, fixed: Networks, origins: Sequence[Origin], *, enforced: bool) -> None:
        self.enforced = enforced
        self._fixed = fixed
        self._origins = origins
        self._known: dict[str, AddressVerdict.ValueType] = {}
        self._counters: Mapping[int, Counter] = {
            verdict: metrics.address_verdicts.labels(tool, name)
            for verdict, name in (
                (ADDRESS_VERDICT_LISTED, "listed"),
                (ADDRESS_VERDICT_UNLISTED, "unlisted"),
                (ADDRESS_VERDICT_UNSPECIFIED, "unknown"),
            )
        }
        for origin in origins:
            origin.watch(self._known.clear)

    def verdict(self, peer: str) -> AddressVerdict.ValueType:
        """What the list says of an address; UNSPECIFIED where a part of it was never read.

        Args:
            peer: "203.0.113.7", "2001:db8::7"; what is no address is not listed.
        """
        found = self._known.get(peer)
        if found is None:
            found = self._find(peer)
            if len(self._known) >= _PEERS_REMEMBERED:
                self._known.clear()
            self._known[peer] = found
        self._counters[found].inc()
        return found

    def _find(self, peer: str) -> AddressVerdict.ValueType:
        address = parse_address(peer)
        if address is None:
            return ADDRESS_VERDICT_UNLISTED
        parts = [self._fixed, *(origin.networks for origin in self._origins)]
        if any(part is not None and address in part for part in parts):
            return ADDRESS_VERDICT_LISTED
        return ADDRESS_VERDICT_UNSPECIFIED if None in parts else ADDRESS_VERDICT_UNLISTED


class Addresses:
    """The allow-lists of all sources, by tenant and tool.

    Args:
        security: The lists.
        client: Where pages are kept that were read well, for a start at which they are away.
    """

    def __init__(self, security: SecuritySection, client: Client) -> None:
        self._client = client
        self._origins: dict[str, Origin] = {}
        self._of_all = self._lists(security.allowed_addresses)
        self._of_tenants = {
            name: self._lists(tenant.allowed_addresses) for name, tenant in security.tenants.items()
        }

    def of(self, tenant: str, tool: str) -> AllowList | None:
        """The list of a source: its tenant's own, else the one of the tool; None where there is neither."""
        own = self._of_tenants.get(tenant)
        return (own.get(tool) if own else None) or self._of_all.get(tool)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Read what is read from elsewhere, and keep it fresh while inside."""
        await asyncio.gather(*(origin.refresh() for origin in self._origins.values()))
        tasks = [asyncio.create_task(origin.keep()) for origin in self._origins.values()]
        try:
            yield
        finally:
            await ended(tasks)

    def _lists(self, sections: Mapping[str, AllowedSection]) -> dict[str, AllowList]:
        return {tool: self._list(tool, section) for tool, section in sections.items()}

    def _list(self, tool: str, section: AllowedSection) -> AllowList:
        elsewhere = [text for text in section.networks if text.startswith(("file:", "https:", "http:"))]
        fixed = Networks.parse(text for text in section.networks if text not in elsewhere)
        origins = [self._origin(text, section) for text in elsewhere]
        return AllowList(tool, fixed, origins, enforced=section.mode == "enforce")

    def _origin(self, text: str, section: AllowedSection) -> Origin:
        every_s = section.refresh.total_seconds()
        if text.startswith("file:"):
            every_s = min(every_s, FILE_REREAD_S)
        origin = self._origins.setdefault(text, Origin(text, every_s, self._client))
        origin.every_s = min(origin.every_s, every_s)
        return origin


def addresses_of(security: SecuritySection, client: Client) -> Addresses | None:
    """The allow-lists, or None where there are none."""
    configured = bool(security.allowed_addresses) or any(
        tenant.allowed_addresses for tenant in security.tenants.values()
    )
    return Addresses(security, client) if configured else None
