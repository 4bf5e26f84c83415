"""Every kind of server in every form, each started when its first test comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from webhook_shared.settings import RedisSection

from tests.servers import machines
from tests.servers.machines import Place
from tests.servers.queue import Line, Queue

ROOT = Path(__file__).parents[2]
#: As the guide calls it.
CERTIFICATES = ROOT / "scripts" / "generate-redis-certs.sh"
#: As in docs/redis.md.
LEAST_RIGHTS = next(
    line.partition("webhook ")[2].split()
    for line in (ROOT / "docs" / "redis.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("ACL SETUSER webhook ")
)
PASSWORD = "a-password-of-the-tests"


async def _restricted(directory: Path) -> Place:
    place = await machines.single(directory, "acl", machines.valkey())
    async with place.machines[0].plain() as client:
        rights = [f">{PASSWORD}" if word == ">PASSWORD" else word for word in LEAST_RIGHTS]
        await client.execute_command("ACL", "SETUSER", "webhook", *rights)
    settings = RedisSection(
        addresses=place.settings.addresses, username="webhook", password=SecretStr(PASSWORD)
    )
    return Place("acl", settings, place.machines, place.admin)


async def _certified(directory: Path) -> Place:
    binary = machines.redis_7()
    making = await asyncio.create_subprocess_exec(
        CERTIFICATES, cwd=directory, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    assert await making.wait() == 0
    return await machines.over_tls(directory, binary, directory)


KINDS: dict[str, Callable[[Path], Awaitable[Place]]] = {
    "redis-6.2": lambda directory: machines.single(directory, "redis 6.2", machines.redis_6()),
    "redis-7.0": lambda directory: machines.single(directory, "redis 7.0", machines.redis_7()),
    "redis-8": lambda directory: machines.single(directory, "redis 8", machines.redis_8()),
    "valkey-9": lambda directory: machines.single(directory, "valkey 9", machines.valkey()),
    "acl": _restricted,
    "tls": _certified,
    "cluster-6.2": lambda directory: machines.cluster(directory, machines.redis_6()),
    "cluster-9": lambda directory: machines.cluster(directory, machines.valkey()),
    "sentinel": lambda directory: machines.trio(directory, machines.valkey(), replicas=1),
}


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=KINDS)
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """One kind of server, up."""
    found = await KINDS[request.param](tmp_path_factory.mktemp("server"))
    yield found
    found.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def line(place: Place) -> AsyncIterator[Line]:
    """An empty queue there, with a door and one worker's view of it."""
    async with Line(place) as found:
        await found.admin.flushall()
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def queue(line: Line) -> AsyncIterator[Queue]:
    """One worker's view of the queue."""
    async with line.queue() as found:
        await found.join()
        yield found
