"""Full text in memory: SQLite's FTS5, ranked by BM25."""

from __future__ import annotations

import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Sequence

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

    def strengths(self, query: str) -> dict[str, float]:
        """How well each text that has any of the query's words answers it, above 0 and at most 1.

        The share of the query that a text holds, rare words counting for more, times its BM25 beside the
        best one's: a text with one word of five is weak even where no other has any.
        """
        terms = _terms(query)
        found = (
            self._db.execute(
                "SELECT rowid, -bm25(words, ?, 1.0) FROM words WHERE words MATCH ?",
                (_TITLE_WEIGHT, _any_of(terms)),
            ).fetchall()
            if terms
            else []
        )
        if not found:
            return {}
        best = max(score for _, score in found)
        shares = self._shares(terms)
        return {self._ids[row]: shares[row] * (score / best if best > 0 else 1.0) for row, score in found}

    def _shares(self, terms: Sequence[str]) -> dict[int, float]:
        held: dict[int, float] = defaultdict(float)
        whole = 0.0
        for term in terms:
            rows = self._db.execute(
                "SELECT rowid FROM words WHERE words MATCH ?", (_any_of([term]),)
            ).fetchall()
            weight = math.log1p(len(self._rows) / (1 + len(rows)))
            whole += weight
            for (row,) in rows:
                held[row] += weight
        return {row: weight / whole for row, weight in held.items()}

    def highlight(self, query: str, context_id: str) -> str:
        """The passage with most of the query's words, these between MARK_BEFORE and MARK_AFTER."""
        row, terms = self._rows.get(context_id), _terms(query)
        if row is None or not terms:
            return ""
        found = self._db.execute(
            "SELECT snippet(words, -1, ?, ?, '…', ?) FROM words WHERE words MATCH ? AND rowid = ?",
            (MARK_BEFORE, MARK_AFTER, _SNIPPET_WORDS, _any_of(terms), row),
        ).fetchone()
        return str(found[0]) if found else ""

    def close(self) -> None:
        """Free the memory."""
        self._db.close()


def _terms(query: str) -> list[str]:
    # Only letters and digits get through.
    terms = list(dict.fromkeys(_TERM.findall(query.casefold())))
    # A text is not about what one looks for because it says "the"; unless nothing else is asked.
    return ([term for term in terms if term not in _STOP_WORDS] or terms)[:MOST_TERMS]


def _any_of(terms: Sequence[str]) -> str:
    # Each word quoted: nothing of FTS5's query language gets through.
    return " OR ".join(f'"{term}"' for term in terms)
