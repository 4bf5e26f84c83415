"""What the index knows of contexts beside words and vectors, in SQLite: what filters and links ask for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from webhook.context.v1.context_pb2 import Tier

from webhook_context.domain.contexts import Filter, Link
from webhook_context.finding.documents import Document

_TABLES = """
CREATE TABLE contexts (row INTEGER PRIMARY KEY, id TEXT NOT NULL, tool TEXT NOT NULL, kind TEXT NOT NULL,
  tier INTEGER NOT NULL, importance REAL NOT NULL, updated INTEGER NOT NULL, pinned INTEGER NOT NULL);
CREATE INDEX pinned ON contexts (importance DESC, id) WHERE pinned;
CREATE TABLE labels (label TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (label, row)) WITHOUT ROWID;
CREATE INDEX labels_by_row ON labels (row);
CREATE TABLE links (target TEXT NOT NULL, relation TEXT NOT NULL, source TEXT NOT NULL, row INTEGER NOT NULL,
  PRIMARY KEY (target, relation, source)) WITHOUT ROWID;
CREATE INDEX links_by_row ON links (row);
"""


class Condition(NamedTuple):
    """A part of a WHERE clause over `contexts`, and its values."""

    sql: str
    values: tuple[str | float, ...]


def condition(wanted: Filter) -> Condition:
    """What a filter asks."""
    parts: list[str] = []
    values: list[str | float] = []

    def require(sql: str, *given: str | float) -> None:
        parts.append(sql)
        values.extend(given)

    if wanted.tools:
        require("contexts.tool IN (SELECT value FROM json_each(?))", json.dumps(sorted(wanted.tools)))
    if wanted.kinds:
        require("contexts.kind IN (SELECT value FROM json_each(?))", json.dumps(sorted(wanted.kinds)))
    if wanted.tiers:
        require("contexts.tier IN (SELECT value FROM json_each(?))", json.dumps(sorted(wanted.tiers)))
    if wanted.labels:
        held = "SELECT row FROM labels WHERE label IN (SELECT value FROM json_each(?))"
        # `+`: else it is asked of the full text, row by row.
        require(f"+contexts.row IN ({held})", json.dumps(sorted(wanted.labels)))
    if wanted.min_importance > 0:
        require("contexts.importance >= ?", wanted.min_importance)
    if wanted.updated_after_ms is not None:
        require("contexts.updated > ?", wanted.updated_after_ms)
    if wanted.updated_before_ms is not None:
        require("contexts.updated < ?", wanted.updated_before_ms)
    return Condition(" AND ".join(parts) or "TRUE", tuple(values))


class Catalogue:
    """Contexts by row. Not safe for concurrent use."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.executescript(_TABLES)

    def put(self, row: int, document: Document) -> None:
        """Keep a context; the row has none."""
        self._db.execute(
            "INSERT INTO contexts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row,
                document.context_id,
                document.tool,
                document.kind,
                document.tier,
                document.importance,
                document.update_ms,
                document.pinned,
            ),
        )
        self._db.executemany("INSERT INTO labels VALUES (?, ?)", [(one, row) for one in document.labels])
        self._db.executemany(
            "INSERT INTO links VALUES (?, ?, ?, ?)",
            [(link.context_id, link.relation, document.context_id, row) for link in document.links],
        )

    def drop(self, row: int) -> None:
        """Forget a context."""
        self._db.execute("DELETE FROM contexts WHERE row = ?", (row,))
        self._db.execute("DELETE FROM labels WHERE row = ?", (row,))
        self._db.execute("DELETE FROM links WHERE row = ?", (row,))

    def move(self, row: int, tier: Tier.ValueType) -> None:
        """A context lies in another tier."""
        self._db.execute("UPDATE contexts SET tier = ? WHERE row = ?", (tier, row))

    def rows(self, wanted: Filter) -> NDArray[np.int64]:
        """Whatever a filter admits, in the order of rows."""
        asked = condition(wanted)
        found = self._db.execute(
            f"SELECT row FROM contexts WHERE {asked.sql} ORDER BY row",  # noqa: S608  # of our own words alone
            asked.values,
        )
        return np.fromiter((row for (row,) in found), dtype=np.int64)

    def admitted(self, wanted: Filter, rows: Sequence[int]) -> list[int]:
        """Those of these rows that a filter admits, in their order."""
        asked = condition(wanted)
        found = self._db.execute(
            "SELECT contexts.row FROM json_each(?) AS given "  # noqa: S608  # of our own words alone
            f"CROSS JOIN contexts ON contexts.row = given.value WHERE {asked.sql} ORDER BY given.key",
            (json.dumps(list(rows)), *asked.values),
        )
        return [row for (row,) in found]

    def pinned(self, wanted: Filter, most: int) -> list[str]:
        """Pinned contexts, the most important first."""
        asked = condition(wanted)
        found = self._db.execute(
            f"SELECT id FROM contexts WHERE pinned AND {asked.sql} "  # noqa: S608  # of our own words alone
            "ORDER BY importance DESC, id LIMIT ?",
            (*asked.values, most),
        )
        return [context_id for (context_id,) in found]

    def linking_to(
        self, context_id: str, relations: Sequence[str], after: tuple[str, str], most: int
    ) -> list[Link]:
        """Who names a context, as (relation, id), in this order, behind a given one."""
        found = self._db.execute(
            "SELECT relation, source FROM links WHERE target = ? AND (relation, source) > (?, ?) "
            "AND (? OR relation IN (SELECT value FROM json_each(?))) ORDER BY relation, source LIMIT ?",
            (context_id, *after, not relations, json.dumps(list(relations)), most),
        )
        return [Link(*one) for one in found]
