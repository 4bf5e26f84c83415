"""What makes deliveries the same one, of events that are held here: the rule of `publish.lua`, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from webhook_gateway.outcome import Duplicate, Publication

_Name = tuple[bool, str]
"""Whether it is of quarantined events, and a dedup_key or replay_key."""


class Claim(NamedTuple):
    """One event of a key.

    Attributes:
        event_id: It.
        key: Under which name it came; two events of one signature and different names are the same one.
        digest: Of its body; empty where bodies are not compared.
    """

    event_id: str
    key: str
    digest: str


class Claims:
    """The keys of events, which many events may share.

    Args:
        below: Other claims, which count too.
    """

    def __init__(self, below: Claims | None = None) -> None:
        self._below = below.of if below is not None else _nothing
        self._by_name: dict[_Name, tuple[Claim, ...]] = {}

    def __contains__(self, publication: Publication) -> bool:
        """Whether this very event is held."""
        return any(claim.event_id == publication.event_id for claim in self.of(_record(publication)))

    def first_of(self, publication: Publication) -> Duplicate | None:
        """The event that this delivery repeats, if as many of them are held as may pass."""
        claims = self.of(_record(publication))
        if any(claim.event_id == publication.event_id for claim in claims):
            return None
        digest = publication.body_digest
        twins = [claim for claim in claims if not (digest and claim.digest) or claim.digest == digest]
        if twins and len(claims) >= max(1, publication.occurrences_allowed):
            return Duplicate(twins[0].event_id)
        for claim in self.of(_echo(publication)):
            if claim.event_id != publication.event_id and claim.key != publication.dedup_key:
                return Duplicate(claim.event_id, renamed=True)
        return None

    def add(self, publication: Publication) -> None:
        """It is held now."""
        claim = Claim(publication.event_id, publication.dedup_key, publication.body_digest)
        for name in _names(publication):
            self._by_name[name] = (*self._by_name.get(name, ()), claim)

    def drop(self, publication: Publication) -> None:
        """It is held no longer."""
        for name in _names(publication):
            left = tuple(
                claim for claim in self._by_name.get(name, ()) if claim.event_id != publication.event_id
            )
            if left:
                self._by_name[name] = left
            else:
                self._by_name.pop(name, None)

    def of(self, name: _Name | None) -> tuple[Claim, ...]:
        """The events of a key, in order."""
        if name is None:
            return ()
        return (*self._below(name), *self._by_name.get(name, ()))


def _record(publication: Publication) -> _Name:
    return publication.quarantined, publication.dedup_key


def _echo(publication: Publication) -> _Name | None:
    return (publication.quarantined, publication.replay_key) if publication.replay_key else None


def _names(publication: Publication) -> Iterable[_Name]:
    return filter(None, (_record(publication), _echo(publication)))


def _nothing(_name: _Name) -> tuple[Claim, ...]:
    return ()
