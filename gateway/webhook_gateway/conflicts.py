"""Events that came under the id of another one with another body: listed for operators, told to security.

The script that publishes them writes the lists, one beside each stream; here they are read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import structlog
from webhook.security.v1.admission_service_pb2 import Conflict
from webhook_shared.errors import ServiceError
from webhook_shared.redis import Client

from webhook_gateway.outcome import Publication
from webhook_gateway.security_client import SecurityClient

log = structlog.get_logger()

NEWEST = "+"
MOST_LOOKED_AT = 5000
"""Of each list, per call; a page may be short, with more to come."""
MOST_WAITING = 10_000
MOST_REPORTED = 256

_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,20})")


class Conflicts:
    """The lists in one Redis.

    Args:
        client: Where.
        streams: The streams beside which they are.
    """

    def __init__(self, client: Client, streams: Sequence[str]) -> None:
        self._client = client
        self._names = [f"conflicts:{{{stream}}}" for stream in streams]

    async def page(
        self, size: int, token: str, *, tool: str = "", tenants: Collection[str] = (), since_ms: int = 0
    ) -> tuple[list[dict[str, str]], str]:
        """The fields of at most `size` of them, newest first, and the token of the next page, or nothing.

        Args:
            size: At least 1.
            token: Of the page before, or empty.
            tool: Empty means all.
            tenants: None named means all.
            since_ms: When the oldest came, Unix time.

        Raises:
            ValueError: The token is not one of ours.
        """
        if token and not _ID.fullmatch(token):
            raise ValueError("not a page token of this list")
        # Ids of different lists may be equal; those of one page end together, so none of them is torn.
        newest = f"({token}" if token else NEWEST
        found: list[tuple[tuple[int, int], dict[str, str]]] = []
        horizon = (0, 0)
        for name in self._names:
            rows: Any = await self._client.xrevrange(name, newest, f"{max(since_ms, 0)}-0", MOST_LOOKED_AT)
            if len(rows) == MOST_LOOKED_AT:
                horizon = max(horizon, _age(rows[-1][0]))
            found += [(_age(entry_id), _texts(fields)) for entry_id, fields in rows]
        found = sorted((row for row in found if row[0] >= horizon), key=lambda row: row[0], reverse=True)
        wanted = [row for row in found if _is_wanted(row[1], tool, tenants)]
        if len(wanted) > size:
            last = wanted[size - 1][0]
            page = [fields for age, fields in wanted if age >= last]
            return page, _token(last) if len(page) < len(wanted) or any(horizon) else ""
        return [fields for _, fields in wanted], _token(horizon) if any(horizon) else ""


class ConflictReports:
    """Tells security what was published in conflict, in the background.

    Args:
        security: Puts it on record.
    """

    def __init__(self, security: SecurityClient) -> None:
        self._security = security
        self._waiting: deque[Conflict] = deque(maxlen=MOST_WAITING)

    def note(self, publication: Publication, first_event_id: str) -> None:
        """An event came under the id of another one."""
        self._waiting.append(
            Conflict(
                tenant=publication.tenant,
                tool=publication.tool,
                event_id=publication.event_id,
                first_event_id=first_event_id,
            )
        )

    async def report(self) -> None:
        """Report what waits; what can't be reported now waits on."""
        while self._waiting:
            told = [self._waiting[at] for at in range(min(len(self._waiting), MOST_REPORTED))]
            try:
                await self._security.report_conflicts(told)
            except ServiceError as error:
                log.warning("conflicts.not_reported", reason=error.reason)
                return
            for _ in told:
                self._waiting.popleft()


def _is_wanted(fields: dict[str, str], tool: str, tenants: Collection[str]) -> bool:
    return (not tool or fields.get("tool") == tool) and (not tenants or fields.get("tenant") in tenants)


def _age(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _token(age: tuple[int, int]) -> str:
    return f"{age[0]}-{age[1]}"


def _texts(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
