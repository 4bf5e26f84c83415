"""The registry of sources in PostgreSQL: the table `mcp.webhook_configs`, a row per organisation.

A row gives the route `/webhooks/<organisation>/<tool>`, where the tool is the same for all rows: the table
has no column for it. What can't be used of the table is left out by name; it never keeps the rest from
being served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import asyncpg
import structlog

from webhook_security import metrics
from webhook_security.registry.definitions import Definition, Registered, RegistryUnreadable
from webhook_security.secrets.secret import Secret
from webhook_security.settings import ROUTE_NAME, DatabaseRegistrySection

log = structlog.get_logger()

TABLE = "mcp.webhook_configs"
MOST_ROWS = 10_000
PATIENCE_S = 5.0
"""How long to wait for a connection, and for the answer, seconds."""
ANY_EVENT = "*"
REFERENCE_PREFIX = "postgresql:"

# Both flags of a row must be true: which of the two is meant to switch it off is told nowhere.
_QUERY = f"""
    SELECT organization_name::text, webhook_secret::text, enabled IS TRUE AND is_active IS TRUE AS is_on,
           allowed_events::text[]
    FROM {TABLE} ORDER BY organization_name, id LIMIT {MOST_ROWS + 1}
"""  # noqa: S608  # the table's name is ours
_HIDES_ROWS = f"SELECT row_security_active('{TABLE}')"

#: Classes of SQLSTATE that waiting does not mend: not let in, no such database, table or column.
_FINAL = ("28", "3D", "3F", "42")


class _Row(NamedTuple):
    organisation: str | None
    secret: str | None
    is_on: bool
    events: list[str | None] | None


class _Useless(Exception):
    pass


class PostgresSources:
    """Reads the table over a connection of its own each time, so that none has to be watched.

    Args:
        section: Where the database is and what tool its rows are for.
    """

    name = "postgresql"

    def __init__(self, section: DatabaseRegistrySection) -> None:
        self._url = section.url.get_secret_value()
        self._tool = section.tool
        self._skipped: Mapping[str, str] = {}

    async def read(self) -> Registered:
        """What the table says now.

        Raises:
            RegistryUnreadable: The database is away, refuses us, or shows another table than we know.
        """
        try:
            rows = await self._rows()
        except asyncpg.PostgresError as error:
            state = error.sqlstate or ""
            raise RegistryUnreadable(
                f"the database refuses to be read ({type(error).__name__}, SQLSTATE {state})",
                final=state.startswith(_FINAL),
            ) from None
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError) as error:
            # A URL that is none, or one that asks for what can't be.
            raise RegistryUnreadable(
                f"the database can't be asked ({type(error).__name__})", final=isinstance(error, ValueError)
            ) from None
        except (OSError, TimeoutError) as error:
            raise RegistryUnreadable(f"the database is away ({type(error).__name__})", final=False) from None
        if len(rows) > MOST_ROWS:
            raise RegistryUnreadable(f"{TABLE} has more than {MOST_ROWS:,} rows", final=True)
        registered, skipped = registered_of(rows, self._tool)
        self._tell(registered, rows, skipped)
        return registered

    async def _rows(self) -> list[_Row]:
        connection = await asyncpg.connect(
            self._url,
            timeout=PATIENCE_S,
            command_timeout=PATIENCE_S,
            # A pooler in between knows no prepared statement of ours.
            statement_cache_size=0,
        )
        try:
            rows = [_Row(*row) for row in await connection.fetch(_QUERY)]
            hidden = not rows and await connection.fetchval(_HIDES_ROWS)
            await connection.close(timeout=PATIENCE_S)
        except BaseException:
            connection.terminate()
            raise
        if hidden:
            raise RegistryUnreadable(
                f"row-level security hides every row of {TABLE} from this user: "
                "give it BYPASSRLS, or a policy that lets it read",
                final=True,
            )
        return rows

    def _tell(self, registered: Registered, rows: list[_Row], skipped: Mapping[str, str]) -> None:
        counts = {
            "taken": len(registered.definitions),
            "off": sum(not row.is_on for row in rows),
            "skipped": len(skipped),
        }
        for state, count in counts.items():
            metrics.registry_entries.labels(self.name, state).set(count)
        if skipped and skipped != self._skipped:
            log.warning("registry.rows_skipped", registry=self.name, rows=skipped)
        self._skipped = skipped


def registered_of(rows: Iterable[_Row], tool: str) -> tuple[Registered, Mapping[str, str]]:
    """The sources in rows of the table.

    Args:
        rows: In order of organisation.
        tool: What all of them are for.

    Returns:
        The sources, and why each row that is of no use is left out, by its organisation.
    """
    definitions: dict[str, Definition] = {}
    values: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for number, row in enumerate(rows):
        if not row.is_on:
            continue
        try:
            tenant = _tenant(row)
            if tenant in definitions:
                raise _Useless(f"another row is {tenant} already")
            events = _events(row)
            if not (row.secret or "").strip():
                raise _Useless("webhook_secret is empty")
        except _Useless as useless:
            skipped[_shown(row, number)] = str(useless)
            continue
        reference = f"{REFERENCE_PREFIX}{tenant}"
        definitions[tenant] = Definition(tenant, tool, (Secret(reference, reference),), events)
        values[reference] = row.secret or ""
    return Registered(list(definitions.values()), values), skipped


def _tenant(row: _Row) -> str:
    tenant = (row.organisation or "").lower()
    if not ROUTE_NAME.fullmatch(tenant):
        raise _Useless("organization_name is no name for a route: 1 to 63 of a-z, 0-9, - and _")
    return tenant


def _events(row: _Row) -> frozenset[str] | None:
    if row.events is None or ANY_EVENT in row.events:
        return None
    events = frozenset(event.strip() for event in row.events if event and event.strip())
    if not events:
        raise _Useless("allowed_events is empty: NULL or {*} allows every event")
    return events


def _shown(row: _Row, number: int) -> str:
    # It comes from strangers' hands, and goes to a log.
    name = (row.organisation or "")[:64]
    return ascii(name)[1:-1] if name else f"(row {number + 1}, without a name)"
