"""Scripts heal themselves; a server that would lose the queue is refused."""

import os

import pytest
from webhook_shared import redis as store
from webhook_shared.redis import Backoff, Client, ResponseError, Script
from webhook_shared.settings import RedisSection

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


async def test_a_flushed_script_is_loaded_again(redis: Client) -> None:
    assert await ADD(redis, ["n"], [1]) == 1
    await redis.script_flush()
    assert await ADD(redis, ["n"], [2]) == 3


async def test_a_batch_heals_runs_each_call_once_and_keeps_order(redis: Client) -> None:
    await ADD.batch(redis, [(["n"], [1])])
    await redis.script_flush()
    replies = await ADD.batch(redis, [(["n"], [1]), (["n"], ["x"]), (["n"], [1])])
    assert [reply for reply in replies if not isinstance(reply, Exception)] == [2, 3]
    assert isinstance(replies[1], ResponseError)


async def test_an_evicting_server_is_refused_unless_allowed(redis: Client) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(RuntimeError, match="allkeys-lru"):
            await store.guard(redis)
        await store.guard(redis, allow_evicting=True)
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    await store.guard(redis)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="addresses"):
        store.connect(RedisSection(addresses=("nowhere",)))


@pytest.mark.skipif("WEBHOOK_TEST_CLUSTER" in os.environ, reason="needs a server that is no Cluster")
async def test_several_servers_that_are_no_cluster_are_refused(valkey: RedisSection) -> None:
    with pytest.raises(RuntimeError, match=r"no part of a Cluster: name one server, or set redis\.sentinel"):
        async with store.opened(RedisSection(addresses=(*valkey.addresses, "127.0.0.1:1"))):
            pass


def test_backoff_grows_to_its_cap_with_full_jitter_and_starts_anew() -> None:
    backoff = Backoff(base_s=1, cap_s=8)
    for ceiling in (1, 2, 4, 8, 8, 8):
        assert 0 <= backoff.next_delay_s() <= ceiling
    backoff.reset()
    assert backoff.next_delay_s() <= 1
