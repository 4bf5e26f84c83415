"""Rotating a source's secrets, so that no valid delivery is refused on the way."""

from __future__ import annotations

import hashlib
import secrets as randomness
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog
from webhook_shared.errors import FailedPrecondition, InvalidArgument, NotFound
from webhook_shared.rpc.identity import caller

from webhook_security.registry.sources import Registry, Source
from webhook_security.secrets.rotated import ADDED_PREFIX, Record, Records, minted
from webhook_security.secrets.secret import Secret, digest
from webhook_security.secrets.stored import StoredSecrets

log = structlog.get_logger()

LONGEST_SECRET = 8192
"""Characters."""
LONGEST_OVERLAP_S = 90 * 24 * 3600.0

_KEY_ID_CHARACTERS = 12


class Rotated(NamedTuple):
    """What a rotation did.

    Attributes:
        key_id: Of the new secret.
        minted: The new secret, where it was made here and just now; else empty.
        ending: The key ids of those that end with the overlap.
        behind: How many replicas have not taken it yet.
    """

    key_id: str
    minted: str
    ending: Sequence[str]
    behind: int


class Rotations:
    """Adds and ends secrets.

    Args:
        registry: The sources.
        stored: Where what is decided is kept.
        clock: Unix seconds.
    """

    def __init__(
        self, registry: Registry, stored: StoredSecrets, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry
        self._stored = stored
        self._clock = clock

    async def rotate(self, source: Source, *, secret: str, overlap_s: float, request_id: str) -> Rotated:
        """Add a secret that holds from now on, and end the others after the overlap.

        Args:
            source: Whose.
            secret: The new one; empty: it is made here.
            overlap_s: How long the others hold still, seconds.
            request_id: A repeated call with the same one adds nothing; may be empty.

        Raises:
            InvalidArgument: FIELD_INVALID: `secret` is of no use to the source, or is live already.
            Aborted: SECRETS_CHANGED.
            REDIS_TROUBLE: Nothing was written, or it is not known: repeat it with the same request id.
        """
        tenant, tool = source.tenant, source.tool
        now = self._clock()
        key_id = _key_id(source, request_id)
        value = secret or _minted(source, now)
        is_new = True

        def decide(by_tool: Mapping[str, Records]) -> Records:
            nonlocal is_new
            current = self._current(source)
            is_new = not any(record.key_id == key_id for record in by_tool.get(tool, ()))
            if not is_new:
                return ()
            _check(current, value, now)
            added = Record.adding(tool, key_id, value, now)
            ending = _live(current, now)
            return [added, *_ended(current, ending, by_tool.get(tool, ()), now, now + overlap_s)]

        behind = await self._stored.behind(await self._stored.change(tenant, decide))
        current = self._current(source)
        ending = [one.key_id for one in _live(current, now) if one.key_id != key_id]
        if is_new:
            log.info("secret.rotated", **_names(source, key_id), overlap_s=overlap_s, by=caller().key_id)
        return Rotated(key_id, value if is_new and not secret else "", ending, behind)

    async def retire(self, source: Source, key_id: str) -> int:
        """End a secret now; one that has ended stays so.

        Returns:
            How many replicas may still take it.

        Raises:
            NotFound: SECRET_NOT_FOUND.
            FailedPrecondition: LAST_SECRET: No other one is live. SECRET_UNUSABLE: It can't be read, so it is
                not known what would have to end.
            Aborted: SECRETS_CHANGED.
            REDIS_TROUBLE: Nothing was written, or it is not known: repeat it.
        """
        now = self._clock()

        def decide(by_tool: Mapping[str, Records]) -> Records:
            current = self._current(source)
            found = next((one for one in current.secrets if one.key_id == key_id), None)
            if found is None:
                raise NotFound("SECRET_NOT_FOUND", "there is no such secret", **_names(source, key_id))
            if not found.holds(now):
                return ()
            if found.reference not in current.usable:
                raise FailedPrecondition(
                    "SECRET_UNUSABLE",
                    "it verifies nothing as it is; take it out of the configuration",
                    **_names(source, key_id),
                )
            ending = _same(current, found, now)
            if len(ending) == len(_live(current, now)):
                raise FailedPrecondition(
                    "LAST_SECRET", "no other secret of this source is live", **_names(source, key_id)
                )
            records = _ended(current, ending, by_tool.get(source.tool, ()), now, now)
            return [record.retired(now) for record in records]

        behind = await self._stored.behind(await self._stored.change(source.tenant, decide))
        log.info("secret.retired", **_names(source, key_id), by=caller().key_id)
        return behind

    def _current(self, source: Source) -> Source:
        # The registry may have another one by now.
        return self._registry.find(source.tenant, source.tool) or source


def _key_id(source: Source, request_id: str) -> str:
    if not request_id:
        return f"rotated-{randomness.token_hex(_KEY_ID_CHARACTERS // 2)}"
    named = f"{source.tenant}/{source.tool}/{request_id}"
    return f"rotated-{hashlib.sha256(named.encode()).hexdigest()[:_KEY_ID_CHARACTERS]}"


def _minted(source: Source, now: float) -> str:
    like = (source.values[one.reference] for one in _live(source, now))
    made = minted(source.fits, like)
    if made is None:
        raise InvalidArgument(
            "only the sender can make this secret", fields={"secret": "has to come from the sender"}
        )
    return made


def _check(source: Source, value: str, now: float) -> None:
    problem = ""
    if not value.strip() or len(value) > LONGEST_SECRET:
        problem = f"is 1 to {LONGEST_SECRET} characters, and not blank"
    elif not source.fits(value):
        problem = "is none that a scheme of this source can use"
    elif any(source.values[one.reference] == value for one in _live(source, now)):
        problem = "is live already"
    if problem:
        raise InvalidArgument("the secret can't be rotated in", fields={"secret": problem})


def _live(source: Source, now: float) -> Sequence[Secret]:
    return [one for one in source.secrets if one.reference in source.usable and one.holds(now)]


def _same(source: Source, secret: Secret, now: float) -> Sequence[Secret]:
    """What ends with a live secret: all that is configured with its value; itself alone if it was added."""
    if _is_added(secret):
        return [secret]
    value = source.values[secret.reference]
    return [one for one in _live(source, now) if not _is_added(one) and source.values[one.reference] == value]


def _is_added(secret: Secret) -> bool:
    return secret.reference.startswith(ADDED_PREFIX)


def _ended(
    source: Source, secrets: Iterable[Secret], records: Records, now: float, not_after: float
) -> Records:
    """The records that say that live secrets hold no longer than that."""
    added = {record.key_id: record for record in records if record.added}
    ends = {record.digest: record for record in records if not record.added}
    found = []
    for one in secrets:
        value = source.values[one.reference]
        record = added.get(one.key_id) or ends.get(digest(value))
        record = record or Record.ended(source.tool, one.key_id, value, now)
        found.append(record.ending(min(one.not_after, not_after)))
    return found


def _names(source: Source, key_id: str) -> dict[str, str]:
    return {"tenant": source.tenant, "tool": source.tool, "key_id": key_id}
