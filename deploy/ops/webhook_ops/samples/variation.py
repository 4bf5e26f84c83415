"""Tells the same story of other people, problems, numbers and commits.

The samples hold tokens that can't be mistaken (the issue's number is 4117, the ticket FERRY-642), so that a
variation is one pass over the text and stays true across all of the story's webhooks.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

_NAMES = (
    "Mina Okafor", "Jon Halvorsen", "Priya Raman", "Leo Castell", "Ingrid Solheim", "Tomas Varga",
    "Amara Diallo", "Kenji Mori", "Lucia Ferri", "Oskar Lind", "Zoe Marchetti", "Farid Nasser",
    "Hanna Kowal", "Diego Rivas", "Nora Byrne", "Samir Patel", "Elif Demir", "Marek Novak", "Ruth Adeyemi",
    "Paulo Teles",
)  # fmt: skip
_PROBLEM, _FIX, _SLUG = (
    "Two travellers can book the same seat",
    "Hold the seat while the payment runs",
    "hold-seat",
)
_INFRA = "raise-lock-timeout"
_LINE = "Portside to Kestrel Island"
_TOPICS = (
    (_PROBLEM, _FIX, _SLUG),
    ("Refunds are paid out twice", "Give every refund its own key", "refund-key"),
    ("Boarding passes show the wrong pier", "Read the pier when the pass is printed", "pier-on-print"),
    (
        "The timetable shows sailings that were cancelled",
        "Drop cancelled sailings from the cache",
        "cancelled",
    ),
    ("Group discounts vanish at checkout", "Keep the discount through the payment step", "group-discount"),
    ("Search is slow on holiday weekends", "Index sailings by day and harbour", "sailing-index"),
    ("Confirmation mails arrive an hour late", "Send mails from their own queue", "mail-queue"),
    ("Vehicles longer than six metres are not charged", "Price vehicles by their length", "vehicle-length"),
    ("Logged-in travellers are asked for their name again", "Remember the traveller's name", "known-names"),
    (
        "The seat map is empty on small phones",
        "Draw the seat map as a list on small screens",
        "small-seat-map",
    ),
    ("Standby lists forget who came first", "Order standby lists by arrival", "standby-order"),
    ("Storm warnings do not stop the sale", "Close the sale when the harbour closes", "storm-close"),
    ("Children are counted as adults", "Take the age from the booking, not the card", "age-from-booking"),
)
_LINES = (
    _LINE, "Northgate to Heron Bay", "Old Quay to Sandholm", "Portside to Gull Rock",
    "Westhaven to Lyra Island", "Stone Pier to Amber Sound", "Northgate to Kestrel Island",
    "Westhaven to Tern Point", "Old Quay to Fir Island", "Stone Pier to Marsh Landing",
    "Portside to Cape Orrin",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Person:
    """One person under the names and ids that the tools know them by."""

    name: str
    login: str
    mail: str
    github_id: str
    slack_id: str
    account_id: str

    @classmethod
    def of(cls, place: int) -> "_Person":
        name = _NAMES[place]
        login = name.lower().replace(" ", "-")
        return cls(
            name=name,
            login=login,
            mail=login.replace("-", "."),
            github_id=str(88213401 + place),
            slack_id=f"U07{login.replace('-', '').upper()[:5]}{place + 1:02d}",
            account_id=f"712020:8821-{3401 + place}-{login.partition('-')[0]}",
        )

    def tokens(self) -> tuple[str, ...]:
        return (self.name, self.login, self.mail, self.github_id, self.slack_id, self.account_id)


_CAST = tuple(_Person.of(place) for place in range(len(_NAMES)))
# Those who are in the samples.
_PLAYERS = 4

# What varies, longest first: words, then commits, Slack's times, tickets, deployments, event ids and numbers.
# Ids of ten digits and more are those of an issue, a run, a comment...; ten that begin with 1 are a time.
_WORDS = (
    *sorted((token for person in _CAST[:_PLAYERS] for token in person.tokens()), key=len, reverse=True),
    _PROBLEM,
    _FIX,
    _SLUG,
    _INFRA,
    _LINE,
)
_TOKENS = re.compile(
    rf"(?P<word>{'|'.join(re.escape(word) for word in _WORDS)})"
    r"|(?<![0-9a-f])(?P<commit>(?!0{40})[0-9a-f]{40})(?![0-9a-f])"
    r"|(?<!\d)(?P<time>\d{10})\.(?P<fraction>\d{6})(?!\d)"
    r"|FERRY-(?P<ticket>\d+)"
    r"|dep-(?P<deployment>\d+)"
    r"|(?<=\"Ev07)(?P<event>[0-9A-Z]{8})"
    r"|(?<![\w.-])(?P<number>411[78]|93[01])(?!\w|\.\d)"
    r"|(?<![A-Za-z0-9.])(?P<id>[2-9]\d{9,10}|1\d{10})(?!\w|\.\d)"
)


def varied(body: bytes, n: int) -> bytes:
    """The n-th variation of a sample's body; n = 0 is the body itself."""
    if n < 0:
        raise ValueError("variations count from 0")
    if n == 0:
        return body
    words = _words(n)
    pieces: list[str] = []
    for literal, match in _pieces(body):
        pieces.append(literal)
        if match is not None:
            pieces.append(_replacement(match, n, words))
    return "".join(pieces).encode()


@lru_cache(maxsize=64)
def _pieces(body: bytes) -> tuple[tuple[str, re.Match[str] | None], ...]:
    """The body cut at its tokens: text, and the token after it. Finding them is what costs."""
    text = body.decode()
    pieces: list[tuple[str, re.Match[str] | None]] = []
    end = 0
    for match in _TOKENS.finditer(text):
        pieces.append((text[end : match.start()], match))
        end = match.end()
    return (*pieces, (text[end:], None))


@lru_cache(maxsize=64)
def _words(n: int) -> dict[str, str]:
    """What each word of the story becomes."""
    words: dict[str, str] = {}
    for place, person in enumerate(_CAST[:_PLAYERS]):
        other = _CAST[(place + n) % len(_CAST)]
        words.update(zip(person.tokens(), other.tokens(), strict=True))
    line = _LINES[n % len(_LINES)]
    problem, fix, slug = _TOPICS[n % len(_TOPICS)]
    words |= {_PROBLEM: f"{problem}, {line}", _FIX: f"{fix}, {line}", _LINE: line}
    words |= {_SLUG: f"{slug}-{n}", _INFRA: f"{_INFRA}-{n}"}
    return words


def _replacement(match: re.Match[str], n: int, words: dict[str, str]) -> str:
    token = match[0]
    kind = match.lastgroup
    if kind == "word":
        return words[token]
    if kind == "commit":
        return hashlib.sha256(f"{token}:{n}".encode()).hexdigest()[:40]
    if kind == "fraction":
        # Slack tells messages apart by their microseconds.
        seconds, microseconds = divmod(int(match["fraction"]) + n, 1_000_000)
        return f"{int(match['time']) + seconds}.{microseconds:06d}"
    if kind in ("ticket", "deployment"):
        prefix, _, number = token.partition("-")
        # Two tickets belong to the story: steps of two hundred keep all stories' tickets apart.
        return f"{prefix}-{int(number) + 200 * n}"
    if kind == "event":
        return hashlib.sha256(f"{token}:{n}".encode()).hexdigest()[:8].upper()
    # Numbers come in neighbours (issue and pull request, a pipeline's jobs): steps keep stories apart.
    return str(int(token) + (2 if kind == "number" else 10) * n)
