"""Full text in memory: SQLite's FTS5, ranked by BM25."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from webhook_context.finding.catalogue import Condition

MOST_TERMS = 64
MOST_RANKED = 400
"""Texts that are ranked; what is weaker by words alone is no answer by words."""
MOST_LOOKED_AT = 8000
"""About so many texts are weighed: a word that half of them have says little beside a rare one."""
MARK_BEFORE = MARK_AFTER = "**"
"""Around the words that matched, in a highlight as one text."""
_SNIPPET_WORDS = 24
_TITLE_WEIGHT = 4.0
_TERM = re.compile(r"[^\W_]+")
# Control characters, which no text in here has.
_BEGIN, _END = "\x02", "\x03"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "do", "for", "from", "has", "have", "how"),
        *("i", "if", "in", "is", "it", "its", "me", "my", "no", "not", "of", "on", "or", "our", "so", "that"),
        *("the", "their", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "why"),
        *("will", "with", "you", "your"),
    ]
)


class Piece(NamedTuple):
    """A part of a highlight."""

    text: str
    matched: bool


class Words:
    """Titles and bodies by row, beside the catalogue in one database. Not safe for concurrent use."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.execute(
            "CREATE VIRTUAL TABLE words "
            "USING fts5(title, body, tokenize = 'porter unicode61 remove_diacritics 2')"
        )

    def put(self, row: int, title: str, body: str) -> None:
        """Keep a text; the row has none."""
        cleaned = (row, _CONTROL.sub(" ", title), _CONTROL.sub(" ", body))
        self._db.execute("INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)", cleaned)

    def drop(self, row: int) -> None:
        """Forget a text."""
        self._db.execute("DELETE FROM words WHERE rowid = ?", (row,))

    def strengths(self, query: str, condition: Condition) -> dict[int, float]:
        """How well the best texts that have any of the query's words answer it, above 0 and at most 1.

        The share of the query that a text holds, rare words counting for more, times its BM25 beside the
        best one's: a text with one word of five is weak even where no other has any.
        """
        weights = self._weights(_terms(query))
        if not weights:
            return {}
        # By id where two are equal: the same texts rank the same on every replica.
        ranked = (
            "SELECT words.rowid, -bm25(words, ?, 1.0) AS strength FROM words "  # noqa: S608  # of our own words
            "CROSS JOIN contexts ON contexts.row = words.rowid "
            f"WHERE words MATCH ? AND {condition.sql} ORDER BY strength DESC, contexts.id LIMIT ?"
        )
        found = self._db.execute(
            ranked,
            (_TITLE_WEIGHT, _any_of(self._telling(weights)), *condition.values, MOST_RANKED),
        ).fetchall()
        if not found:
            return {}
        best = max(score for _, score in found)
        shares = self._shares(weights, [row for row, _ in found])
        return {row: shares[row] * (score / best if best > 0 else 1.0) for row, score in found}

    def highlights(self, query: str, rows: Collection[int]) -> dict[int, list[Piece]]:
        """The passage of each with most of the query's words; rows without any are missing."""
        terms = _terms(query)
        if not terms or not rows:
            return {}
        # `+rowid`: one walk over what matches, not one for each row.
        found = self._db.execute(
            "SELECT rowid, snippet(words, -1, ?, ?, '…', ?) FROM words "
            "WHERE words MATCH ? AND +rowid IN (SELECT value FROM json_each(?))",
            (_BEGIN, _END, _SNIPPET_WORDS, _any_of(terms), json.dumps(list(rows))),
        ).fetchall()
        return {row: _pieces(marked) for row, marked in found}

    def _weights(self, terms: Sequence[str]) -> dict[str, tuple[float, int]]:
        """Weight and number of texts of each word that any text has; the rarest first."""
        (texts,) = self._db.execute("SELECT count(*) FROM contexts").fetchone()
        counted = [(self._held_by(term), term) for term in terms]
        weights = {term: (math.log1p(texts / (1 + count)), count) for count, term in sorted(counted)}
        return weights if any(count for _, count in weights.values()) else {}

    def _held_by(self, term: str) -> int:
        matching = "SELECT count(*) FROM words WHERE words MATCH ?"
        (count,) = self._db.execute(matching, (_any_of([term]),)).fetchone()
        return int(count)

    def _telling(self, weights: dict[str, tuple[float, int]]) -> list[str]:
        chosen: list[str] = []
        texts = 0
        for term, (_, count) in weights.items():
            if not chosen or not texts or texts + count <= MOST_LOOKED_AT:
                chosen.append(term)
                texts += count
        return chosen

    def _shares(self, weights: dict[str, tuple[float, int]], rows: Sequence[int]) -> dict[int, float]:
        held: dict[int, float] = defaultdict(float)
        among = json.dumps(rows)
        for term, (weight, _) in weights.items():
            matching = (
                "SELECT rowid FROM words WHERE words MATCH ? AND +rowid IN (SELECT value FROM json_each(?))"
            )
            for (row,) in self._db.execute(matching, (_any_of([term]), among)):
                held[row] += weight
        # Of all words, also of those that no text has.
        whole = sum(weight for weight, _ in weights.values())
        return {row: weight / whole for row, weight in held.items()}


def joined(pieces: Sequence[Piece]) -> str:
    """A highlight as one text."""
    return "".join(f"{MARK_BEFORE}{text}{MARK_AFTER}" if matched else text for text, matched in pieces)


def _pieces(marked: str) -> list[Piece]:
    pieces = []
    for i, part in enumerate(marked.split(_BEGIN)):
        matched, _, rest = part.partition(_END) if i else ("", "", part)
        pieces += [Piece(matched, matched=True), Piece(rest, matched=False)]
    return [piece for piece in pieces if piece.text]


def _terms(query: str) -> list[str]:
    # Only letters and digits get through.
    terms = list(dict.fromkeys(_TERM.findall(query.casefold())))
    # A text is not about what one looks for because it says "the"; unless nothing else is asked.
    return ([term for term in terms if term not in _STOP_WORDS] or terms)[:MOST_TERMS]


def _any_of(terms: Sequence[str]) -> str:
    # Each word quoted: nothing of FTS5's query language gets through.
    return " OR ".join(f'"{term}"' for term in terms)
