"""Dictionaries come to be in the background, where they pay, and by whoever gets there first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from webhook.dictionary.v1.dictionary_pb2 import Dictionary, Training
from webhook_shared import compression
from webhook_shared.dictionaries import training as dictionary_training
from webhook_shared.dictionaries.administration import DictionaryAdministration
from webhook_shared.dictionaries.samples import LARGEST_SAMPLE_BYTES, SAMPLES, Samples
from webhook_shared.dictionaries.settings import DictionarySection
from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.dictionaries.trainer import Trainer, in_process
from webhook_shared.dictionaries.training import Task
from webhook_shared.errors import Aborted, FailedPrecondition
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring

from shared.tests.dictionary_orders import orders

MASTER = SecretStr("0123456789abcdefghijklmnopqrstuvwxyzABCDEF")
REWRITE = "shared.tests.dictionary_orders:rewritten"
SETTINGS = DictionarySection(min_samples=20, size=16_384, rest_interval=timedelta(hours=1))


class Replica:
    """One process's share of training."""

    def __init__(self, redis: Client, rewrite: str = REWRITE, **settings: Any) -> None:
        self.keyring = Keyring(redis, MASTER, Dictionaries(redis, "events", spread_s=0))
        self.samples = Samples(SETTINGS.sample_memory)
        section = SETTINGS.model_copy(update=settings)
        self.trainer = Trainer(redis, self.keyring, self.samples, section, rewrite=rewrite, level=1)

    def see(self, bodies: Iterable[bytes], tenant: str = "acme") -> None:
        for body in bodies:
            self.samples.offer(tenant, "shop", body)

    async def newest(self, tenant: str = "acme") -> Any:
        await self.keyring.prepare([tenant])
        return self.keyring.dictionaries.newest(tenant, "shop")


@pytest.fixture(autouse=True)
def _finds_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


async def test_a_source_with_samples_enough_gets_a_dictionary_of_its_own(redis: Client) -> None:
    replica = Replica(redis)
    replica.see(orders(19, seed=1))
    await replica.trainer.look()
    assert await replica.newest() is None
    replica.see(orders(10, seed=2))
    await replica.trainer.look()
    entry = await replica.newest()
    assert (entry.generation, entry.sample_count, entry.name, entry.use) == (1, 29, "shop", "events")
    assert entry.ratio > 1.5 * entry.plain_ratio
    assert entry.previous_ratio == entry.plain_ratio
    held = replica.keyring.dictionaries.current("acme", "shop")
    assert held is not None
    unseen = orders(30, seed=3)
    measured = dictionary_training.ratio(unseen, held.content, 1)
    assert measured > 1.5 * dictionary_training.ratio(unseen, b"", 1)
    # It rests on that: nothing is trained while nothing changes.
    replica.see(orders(30, seed=4))
    await replica.trainer.look()
    assert (await replica.newest()).id == entry.id


async def test_what_gains_nothing_is_not_adopted_and_rests(redis: Client) -> None:
    replica = Replica(redis)
    replica.see(os.urandom(800) for _ in range(30))
    await replica.trainer.look()
    assert await replica.newest() is None
    # Even what would gain waits until the rest is over, on every replica.
    other = Replica(redis)
    other.see(orders(30, seed=1))
    await other.trainer.look()
    assert await other.newest() is None
    other.see(orders(30, seed=1))
    assert (await other.trainer.train("acme", "shop")).adopted is not None


async def test_drift_is_noticed_and_answered(redis: Client) -> None:
    replica = Replica(redis)
    replica.see(orders(30, seed=1))
    await replica.trainer.look()
    first = await replica.newest()
    renamed = [
        body.replace(b"_", b"Zq").replace(b"order", b"purchase").replace(b"customer", b"shopper")
        for body in orders(30, seed=5)
    ]
    replica.see(renamed)
    await replica.trainer.look()
    second = await replica.newest()
    assert (second.generation, first.generation) == (2, 1)
    assert second.ratio > 1.1 * second.previous_ratio


async def test_two_replicas_do_not_train_the_same_at_once(redis: Client) -> None:
    one, other = Replica(redis), Replica(redis)
    one.see(orders(30, seed=1))
    other.see(orders(30, seed=2))
    done = await asyncio.gather(
        one.trainer.train("acme", "shop"), other.trainer.train("acme", "shop"), return_exceptions=True
    )
    refused = [error for error in done if isinstance(error, Aborted)]
    assert [error.reason for error in refused] == ["TRAINING_UNDER_WAY"]
    assert (await one.newest()).generation == 1


async def test_a_lost_lease_lets_one_of_both_win(redis: Client) -> None:
    one, other = Replica(redis), Replica(redis)
    one.see(orders(30, seed=1))
    other.see(orders(30, seed=2))
    training = asyncio.create_task(one.trainer.train("acme", "shop"))
    while not await redis.keys("dictionary-lease*"):
        await asyncio.sleep(0.005)
    await redis.delete(*await redis.keys("dictionary-lease*"))
    done = [await other.trainer.train("acme", "shop"), await training]
    assert len([outcome for outcome in done if outcome.adopted]) == 1
    assert len(await redis.keys("dictionary:*")) == 1


async def test_a_trainer_that_dies_leaves_nothing_behind(redis: Client) -> None:
    replica = Replica(redis)
    replica.see(orders(30, seed=1))
    training = asyncio.create_task(replica.trainer.train("acme", "shop"))
    while not await redis.keys("dictionary-lease*"):
        await asyncio.sleep(0.005)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert await redis.keys("dictionar*") == []
    assert (await replica.trainer.train("acme", "shop")).adopted is not None


async def test_a_trainer_that_dies_while_it_asks_for_the_lease_gives_it_back(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, taken, take = Replica(redis), asyncio.Event(), redis.set

    async def taken_and_not_told(*args: object, **options: object) -> None:
        await take(*args, **options)  # type: ignore[arg-type]
        taken.set()
        await asyncio.Event().wait()

    replica.see(orders(30, seed=1))
    monkeypatch.setattr(redis, "set", taken_and_not_told)
    training = asyncio.create_task(replica.trainer.train("acme", "shop"))
    await taken.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert await redis.keys("dictionar*") == []


async def test_a_training_that_fails_is_tried_again_another_time(redis: Client) -> None:
    broken = Replica(redis, rewrite="no.such:thing")
    broken.see(orders(30, seed=1))
    await broken.trainer.look()
    assert await redis.keys("dictionar*") == []


async def test_hostile_samples_cost_their_tenant_a_ratio_and_nobody_anything_else(redis: Client) -> None:
    replica = Replica(redis)
    hostile = [b"{" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900, b'"\\u12', b"\xff" * 900, b"x" * 9000]
    replica.see(hostile * 5)
    replica.see(orders(30, seed=1), tenant="globex")
    await replica.trainer.look()
    entry = await replica.newest("globex")
    assert entry.ratio > 1.5 * entry.plain_ratio
    poisoned = replica.keyring.dictionaries.current("acme", "shop")
    assert poisoned is None or poisoned.id.hex() != entry.id


async def test_destroyed_keys_take_their_dictionaries_with_them(redis: Client) -> None:
    replica = Replica(redis)
    replica.see(orders(30, seed=1))
    await replica.trainer.look()
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", "destroyed", "1")
    replica.keyring._current.clear()
    replica.see(orders(30, seed=2))
    await replica.trainer.look()
    assert await redis.keys("dictionar*") == []
    assert replica.samples.of("acme", "shop") == []


async def test_operators_see_what_there_is_and_may_train(redis: Client) -> None:
    replica = Replica(redis)
    administration = DictionaryAdministration(replica.keyring, replica.trainer)
    with pytest.raises(FailedPrecondition, match="SAMPLES_TOO_FEW"):
        await administration.train("acme", "shop")
    replica.see(orders(30, seed=1))
    done = await administration.train("acme", "shop")
    told = Training(**done)
    assert told.adopted.generation == 1
    assert told.ratio > told.in_use_ratio == told.plain_ratio
    listed = [Dictionary(**one) for one in await administration.listed(["acme"])]
    assert [one for one in listed if one.tenant] == [told.adopted]
    assert told.adopted.in_use
    assert len([one for one in listed if one.name == "github" and one.in_use and not one.tenant]) == 1
    with pytest.raises(FailedPrecondition, match="TRAINING_DISABLED"):
        await DictionaryAdministration(replica.keyring, None).train("acme", "shop")


async def test_the_training_process_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCRYPTION_MASTER_KEY", "must not be there")
    task = Task([b"{}"] * 20, "shared.tests.dictionary_orders:demands_a_secret", 1, b"", 16_384)
    with pytest.raises(OSError, match="ended with"):
        await in_process(task)


def test_samples_are_a_fair_share_and_bounded() -> None:
    samples = Samples(most_bytes=2**20)
    for number in range(20_000):
        samples.offer("acme", "shop", b"%08d" % number + bytes(400))
    held = sorted(int(one[:8]) for one in samples.of("acme", "shop"))
    assert len(held) == SAMPLES
    # Of each half about half: 12 standard deviations would be needed to fail.
    assert 100 < len([number for number in held if number < 10_000]) < SAMPLES - 100
    for number in range(4000):
        samples.offer("globex", "shop", b"%08d" % number + os.urandom(4000))
    assert sum(len(one) for tenant in ("acme", "globex") for one in samples.of(tenant, "shop")) <= 2**20
    samples.clear("acme", "shop")
    assert samples.sources() == [("globex", "shop")]
    samples.clear_older(0.0)
    assert samples.sources() == []
    samples.offer("acme", "shop", bytes(LARGEST_SAMPLE_BYTES + 1))
    assert samples.sources() == []


def test_shipped_dictionaries_stay_what_a_source_begins_with() -> None:
    assert compression.shipped("github") is not None
    assert compression.shipped("shop") is None
