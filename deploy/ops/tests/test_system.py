"""The system as a library: what the tests that kill processes rely on."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest
from webhook_ops.addresses import SERVICES, Addresses
from webhook_ops.delivery import Delivery, route, send
from webhook_ops.dev.problems import StartError
from webhook_ops.dev.secrets import secret_variable
from webhook_ops.dev.system import System, running_system
from webhook_ops.samples.catalogue import sample, vary
from webhook_shared.settings import RedisSection

from deploy.ops.tests.harness import clean_environment


async def sent(system: System, n: int) -> str:
    """The event id of the n-th variation, delivered as a patient sender would."""
    chosen = sample("github", "issues_opened")
    delivery = Delivery("github", chosen.type, vary(chosen, n))
    secret = system.secrets[secret_variable("github")]
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            try:
                answer = await send(client, route(system.addresses.http, "github"), delivery, secret)
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
                continue
            if answer.accepted:
                return answer.event_id
            assert answer.status == 503, answer
            await asyncio.sleep(0.1)


async def test_any_process_may_be_killed_and_comes_back(tmp_path: Path) -> None:
    var = tmp_path / "var"
    async with running_system(var, free_ports=True, fsync="always", environ=clean_environment()) as system:
        assert set(system.processes) == {*SERVICES, "redis"}
        assert await sent(system, 0)
        for name in SERVICES:
            before = system.processes[name].pid
            system.kill(name)
            await system.healthy(name)
            assert system.processes[name].pid != before
        await system.restart_redis()
        await system.healthy()
        assert await sent(system, 1)
        written = Addresses.read(var)
        assert written == system.addresses
    assert Addresses.read(var) is None
    assert "killed on request" in (var / "system.log").read_text()


async def test_an_operator_key_that_redis_lost_is_put_back(tmp_path: Path) -> None:
    environ = clean_environment()
    async with running_system(tmp_path / "var", free_ports=True, environ=environ, services=()) as system:
        key = system.operator_key
    for file in (tmp_path / "var" / "redis" / "appendonlydir").iterdir():
        file.unlink()
    async with running_system(tmp_path / "var", free_ports=True, environ=environ, services=()) as system:
        assert system.operator_key == key


async def refused(var: Path, *, free_ports: bool = True, **environ: str) -> list[str]:
    """Why a system does not start."""
    with pytest.raises(StartError) as refusal:
        async with running_system(var, free_ports=free_ports, environ=clean_environment(**environ)):
            pass
    assert Addresses.read(var) is None
    return refusal.value.problems


async def test_a_port_in_use_is_named_with_the_variable_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = await refused(tmp_path / "var", free_ports=False, WEBHOOK_HTTP_ADDRESS=address)
    assert f"{address} is in use: end what listens there, or set WEBHOOK_HTTP_ADDRESS=host:port" in told


async def test_every_mistake_of_the_configuration_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("webhok: {}\nwebhook:\n  redis:\n    pool_sise: 3\n  consumer:\n    num_workers: many\n")
    told = "\n".join(await refused(tmp_path / "var", WEBHOOK_CONFIG=str(file)))
    assert "webhok: unknown key; did you mean webhook?" in told
    assert "webhook.redis.pool_sise: unknown key; did you mean pool_size?" in told
    assert "webhook.consumer.num_workers" in told


async def test_a_redis_of_ones_own_is_used(tmp_path: Path, valkey: RedisSection) -> None:
    environ = clean_environment(REDIS_ADDRESSES=valkey.addresses[0])
    async with running_system(tmp_path / "var", free_ports=True, environ=environ, services=()) as system:
        assert "redis" not in system.processes
        assert system.addresses.redis == valkey.addresses[0]
        assert system.operator_key


async def test_a_redis_that_does_not_answer_is_named(tmp_path: Path) -> None:
    (told,) = await refused(tmp_path / "var", REDIS_ADDRESSES="127.0.0.1:1")
    assert "Redis at 127.0.0.1:1 does not answer" in told


async def test_a_password_for_the_embedded_redis_is_a_misunderstanding(tmp_path: Path) -> None:
    (told,) = await refused(tmp_path / "var", REDIS_PASSWORD="a password of this test")
    assert "set REDIS_ADDRESSES" in told
    assert "a password of this test" not in told
