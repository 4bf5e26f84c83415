"""The chain holds under many writers, and tells of whatever is done to it behind its back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import SecretStr
from webhook.security.v1 import audit_pb2
from webhook.security.v1.audit_pb2 import AuditFindingKind, AuditRecord
from webhook_security.evidence.audit_check import AuditCheck, checked
from webhook_shared import redis as store
from webhook_shared.audit.chain import HEAD, STREAM, AuditChain, Seal, link

MASTER = SecretStr("kTzW8r5J2mQx7LcV0bNf4HsY9dGa1EpU3oRi6SwB")


def records(count: int, method: str = "X/Y") -> list[AuditRecord]:
    made = [AuditRecord(writer="test/1", number=number) for number in range(1, count + 1)]
    for record in made:
        record.admin_call.method = method
    return made


def found(check: AuditCheck) -> list[tuple[str, int]]:
    return [
        (AuditFindingKind.Name(each.kind).removeprefix("AUDIT_FINDING_KIND_"), each.sequence)
        for each in check.findings
    ]


@pytest.fixture
def chain(redis: store.Client) -> AuditChain:
    return AuditChain(redis, Seal(MASTER), most=1000, contract=audit_pb2)


@pytest.fixture
async def written(chain: AuditChain) -> AuditChain:
    """Entries 1 (the chain begins) to 10."""
    await chain.append(records(9))
    return chain


async def replaced(redis: store.Client, entries: Sequence[tuple[str, dict[bytes, bytes]]]) -> None:
    """Write the stream anew, as somebody could who has Redis."""
    await redis.delete(STREAM)
    for place, fields in entries:
        await redis.xadd(STREAM, dict(fields), id=place)  # type: ignore[arg-type]  # bytes are fine


async def standing(redis: store.Client) -> list[tuple[str, dict[bytes, bytes]]]:
    reply: Any = await redis.xrange(STREAM)
    return [(place.decode(), fields) for place, fields in reply]


async def test_an_untouched_chain_is_intact(written: AuditChain) -> None:
    check = await checked(written)
    assert found(check) == []
    assert (check.first, check.last, check.entries) == (1, 10, 10)
    first = await written.entry(1)
    assert first is not None
    assert first.record.chain_start.reason == audit_pb2.AUDIT_CHAIN_START_REASON_NEW
    assert first.hash == link(bytes(32), 1, first.content)


async def test_an_empty_chain_is_intact(chain: AuditChain) -> None:
    assert found(await checked(chain)) == []


async def test_many_writers_make_one_chain(redis: store.Client) -> None:
    writers = [AuditChain(redis, Seal(MASTER), most=1000, contract=audit_pb2) for _ in range(5)]

    async def write(chain: AuditChain, name: str) -> None:
        for _ in range(10):
            await chain.append(records(3, name))

    await asyncio.gather(*(write(chain, f"w/{at}") for at, chain in enumerate(writers)))
    check = await checked(writers[0])
    assert found(check) == []
    entries = await writers[0].entries(after=0, most=1000)
    by_writer = [entry.record.admin_call.method for entry in entries[1:]]
    assert {name: by_writer.count(name) for name in set(by_writer)} == {f"w/{at}": 30 for at in range(5)}


def change(entries: list[Any]) -> list[Any]:
    entries[4][1][b"content"] = entries[4][1][b"content"].replace(b"X/Y", b"X/Z")
    return entries


def forge(entries: list[Any]) -> list[Any]:
    """Change an entry and make its hash fit."""
    fields = change(entries)[4][1]
    fields[b"hash"] = link(fields[b"previous"], 5, fields[b"content"])
    return entries


def remove(entries: list[Any]) -> list[Any]:
    return entries[:3] + entries[5:]


def insert(entries: list[Any]) -> list[Any]:
    return [*entries[:5], ("5-1", dict(entries[4][1])), *entries[5:]]


def swap(entries: list[Any]) -> list[Any]:
    (a, one), (b, other) = entries[4:6]
    return [*entries[:4], (a, other), (b, one), *entries[6:]]


def cut_off(entries: list[Any]) -> list[Any]:
    return entries[:8]


def put_on(entries: list[Any]) -> list[Any]:
    last = entries[-1][1]
    content = AuditRecord(sequence=11, number=1).SerializeToString()
    return [
        *entries,
        (
            "11-0",
            {
                b"previous": last[b"hash"],
                b"hash": link(last[b"hash"], 11, content),
                b"content": content,
            },
        ),
    ]


def rewrite(entries: list[Any]) -> list[Any]:
    """Change an entry and every hash from there on."""
    forge(entries)
    for before, (place, fields) in itertools.pairwise(entries[4:]):
        fields[b"previous"] = before[1][b"hash"]
        fields[b"hash"] = link(fields[b"previous"], int(place.split("-")[0]), fields[b"content"])
    return entries


@pytest.mark.parametrize(
    ("touch", "finding"),
    [
        (change, [("CHANGED", 5)]),
        (forge, [("UNLINKED", 6)]),
        (remove, [("REMOVED", 4)]),
        (insert, [("INSERTED", 5)]),
        (swap, [("MOVED", 5), ("MOVED", 6)]),
        (cut_off, [("END", 9)]),
        (put_on, [("END", 11)]),
        (rewrite, [("END", 10)]),
    ],
)
async def test_what_is_touched_is_found_and_named(
    redis: store.Client,
    written: AuditChain,
    touch: Callable[[list[Any]], list[Any]],
    finding: list[tuple[str, int]],
) -> None:
    await replaced(redis, touch(await standing(redis)))
    assert found(await checked(written)) == finding


async def test_a_head_of_somebody_else_is_found(redis: store.Client, written: AuditChain) -> None:
    stranger = Seal(SecretStr("another key, long enough, but not ours at all"))
    head = await written.head()
    assert head is not None
    await redis.set(HEAD, stranger.sealed(head))
    assert found(await checked(written)) == [("SEAL", 10)]
    await redis.delete(HEAD)
    assert found(await checked(written)) == [("SEAL", 10)]


async def test_writing_on_does_not_heal_what_was_done(redis: store.Client, written: AuditChain) -> None:
    """Cut the end off and delete the head, so that a writer has to begin a new one."""
    for place in ("9-0", "10-0"):
        await redis.xdel(STREAM, place)
    await redis.delete(HEAD)
    await AuditChain(redis, Seal(MASTER), most=1000, contract=audit_pb2).append(records(1))
    assert ("RESUMED", 11) in found(await checked(written))
    assert ("REMOVED", 9) in found(await checked(written))


async def test_a_chain_that_was_set_back_is_noticed_by_who_wrote_it(
    redis: store.Client, written: AuditChain
) -> None:
    head, entries = await redis.get(HEAD), await standing(redis)
    await written.append(records(5))
    await redis.set(HEAD, head)  # type: ignore[arg-type]  # it is there
    await replaced(redis, entries)
    assert found(await checked(written)) == []
    await written.append(records(1))
    assert ("RESUMED", 16) in found(await checked(written))


async def test_an_emptied_redis_gets_a_chain_again_that_says_so(
    redis: store.Client, written: AuditChain
) -> None:
    await redis.flushall()
    await written.append(records(1))
    check = await checked(written)
    assert found(check) == [("RESUMED", 11)]
    assert check.entries == 2


async def test_the_oldest_go_and_the_rest_stays_whole(redis: store.Client) -> None:
    chain = AuditChain(redis, Seal(MASTER), most=20, contract=audit_pb2)
    for _ in range(10):
        await chain.append(records(5))
    check = await checked(chain)
    assert found(check) == []
    assert check.last == 51
    assert 20 <= check.entries <= 27
    # Whoever takes one more away is found out.
    await redis.xtrim(STREAM, minid=f"{check.first + 1}-0", approximate=False)
    assert found(await checked(chain)) == [("REMOVED", check.first)]


async def test_trimming_takes_what_was_exported_and_nothing_else(written: AuditChain) -> None:
    entry = await written.entry(6)
    assert entry is not None
    with pytest.raises(LookupError):
        await written.trim(6, bytes(32))
    assert await written.trim(6, entry.hash) == 6
    check = await checked(written)
    assert (found(check), check.first, check.last) == ([], 7, 10)
    await written.append(records(1))
    assert found(await checked(written)) == []
