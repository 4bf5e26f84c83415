"""Full text in memory: SQLite's FTS5, ranked by BM25."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

MOST_TERMS = 64
MARK_BEFORE = MARK_AFTER = "**"
"""Around the words that matched, in a highlight."""
_SNIPPET_WORDS = 24
_TITLE_WEIGHT = 4.0
_TERM = re.compile(r"[^\W_]+")
_STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "do", "for", "from", "has", "have", "how"),
        *("i", "if", "in", "is", "it", "its", "me", "my", "no", "not", "of", "on", "or", "our", "so", "that"),
        *("the", "their", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "why"),
        *("will", "with", "you", "your"),
    ]
)


class Words:
    """Titles and bodies by context id. Not safe for concurrent use."""

    def __init__(self) -> None:
        # Calls come from different threads, one at a time.
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute(
            "CREATE VIRTUAL TABLE words "
            "USING fts5(title, body, tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        self._rows: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._next = 1

    def put(self, context_id: str, title: str, body: str) -> None:
        """Keep a text in place of the former one."""
        self.drop(context_id)
        row, self._next = self._next, self._next + 1
        self._db.execute("INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)", (row, title, body))
        self._rows[context_id] = row
        self._ids[row] = context_id

    def drop(self, context_id: str) -> None:
        """Forget a text."""
        row = self._rows.pop(context_id, None)
        if row is not None:
            del self._ids[row]
            self._db.execute("DELETE FROM words WHERE rowid = ?", (row,))

    def ranked(self, query: str) -> Iterator[str]:
        """The ids of texts that have any of the query's words, the best first."""
        if not (expression := _expression(query)):
            return
        found = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, ?, 1.0), rowid",
            (expression, _TITLE_WEIGHT),
        )
        for (row,) in found:
            yield self._ids[row]

    def highlight(self, query: str, context_id: str) -> str:
        """The passage with most of the query's words, these between MARK_BEFORE and MARK_AFTER."""
        row, expression = self._rows.get(context_id), _expression(query)
        if row is None or not expression:
            return ""
        found = self._db.execute(
            "SELECT snippet(words, -1, ?, ?, '…', ?) FROM words WHERE words MATCH ? AND rowid = ?",
            (MARK_BEFORE, MARK_AFTER, _SNIPPET_WORDS, expression, row),
        ).fetchone()
        return str(found[0]) if found else ""

    def close(self) -> None:
        """Free the memory."""
        self._db.close()


def _expression(query: str) -> str:
    # Only letters and digits get through, each word quoted: nothing of FTS5's query language does.
    terms = list(dict.fromkeys(_TERM.findall(query.casefold())))
    # A text is not about what one looks for because it says "the"; unless nothing else is asked.
    terms = [term for term in terms if term not in _STOP_WORDS] or terms
    terms = terms[:MOST_TERMS]
    return " OR ".join(f'"{term}"' for term in terms)
