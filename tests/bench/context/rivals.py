"""The same reads and writes by a bare RPC and by PostgreSQL."""

from __future__ import annotations

import random
from statistics import median
from typing import Any

import orjson
import psutil
from google.protobuf.field_mask_pb2 import FieldMask
from webhook.context.v1.context_pb2 import Context
from webhook.context.v1.context_service_pb2 import UpdateContextRequest

from tests.bench.consume.corpus import Payload
from tests.bench.context.corpus import SEED, TENANT, context_id
from tests.bench.context.house import House, cpu_s, echoing, postgres
from tests.bench.context.pace import AT_ONCE, Call, rate_of
from tests.bench.context.reading import GETS, get_request

CONNECTIONS = 16
ROUNDS = 5
ROWS = 20_000
PUTS = 10_000
_TABLE = """
CREATE TABLE contexts (
    tenant text, id text, version bigint NOT NULL, document jsonb NOT NULL, PRIMARY KEY (tenant, id)
)
"""
_READ = "SELECT version, document FROM contexts WHERE tenant = $1 AND id = $2"
_WRITE = """
UPDATE contexts SET version = version + 1, document = $4::jsonb
WHERE tenant = $1 AND id = $2 AND version = $3 RETURNING version
"""


async def measure(house: House, made: list[Payload], so_far: dict[str, Any]) -> dict[str, Any]:
    """Ratios of ours to theirs.

    Beside the echo ours is measured again, as bytes; beside PostgreSQL as it was, message in and message out.
    """
    answer = (await house.contexts.GetContext(get_request(0))).SerializeToString()
    request = get_request(0).SerializeToString()
    chance = random.Random(SEED)
    numbers = [chance.randrange(ROWS) for _ in range(GETS)]

    requests = [get_request(number % len(made)).SerializeToString() for number in numbers]

    async def own_get(at: int) -> None:
        await house.get(requests[at])

    async def own_put(at: int) -> None:
        context = Context(tenant=TENANT, context_id=context_id(at % len(made)), title=f"Put {at}")
        await house.contexts.UpdateContext(
            UpdateContextRequest(context=context, update_mask=FieldMask(paths=["title"]))
        )

    async with echoing(answer) as (echo, server):

        async def bare(at: int) -> None:
            await echo(request)

        await rate_of(bare, count=GETS // 4)
        # In turns: the machine is not the same from one minute to the next.
        floors, owns = [], []
        for _ in range(ROUNDS):
            floors.append(await costed(bare, GETS // ROUNDS, server))
            owns.append(await costed(own_get, GETS // ROUNDS, house.process))
    floor, own = _median(floors), _median(owns)
    own_puts, put_cpu_us = await costed(own_put, PUTS, house.process, at_once=CONNECTIONS)
    theirs = await _postgres(made, numbers)
    return {
        "echo_per_s": round(floor[0]),
        "get_ratio_to_echo": round(own[0] / floor[0], 2),
        "echo_cpu_us": round(floor[1]),
        "get_cpu_us": round(own[1]),
        "put_per_s": round(own_puts),
        "put_cpu_us": round(put_cpu_us),
        **{name: round(rate) for name, rate in theirs.items()},
        "ratio_to_postgres_get": round(so_far["get_per_s"] / theirs["postgres_get_per_s"], 2),
        "ratio_to_postgres_put": round(own_puts / theirs["postgres_put_per_s"], 2),
    }


async def costed(
    call: Call, count: int, server: psutil.Process, *, at_once: int = AT_ONCE
) -> tuple[float, float]:
    """Calls per second, and microseconds of the server's CPU time for each."""
    before_s = cpu_s(server)
    rate = await rate_of(call, count=count, at_once=at_once)
    return rate, (cpu_s(server) - before_s) / count * 1e6


def _median(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    rates, costs = zip(*rounds, strict=True)
    return median(rates), median(costs)


async def _postgres(made: list[Payload], numbers: list[int]) -> dict[str, float]:
    documents = [
        orjson.dumps({"title": f"Issue {at}", "events": [orjson.loads(each.body)]}).decode()
        for at, each in enumerate(made)
    ]
    async with postgres(CONNECTIONS) as pool:
        await pool.execute(_TABLE)
        await pool.copy_records_to_table(
            "contexts", records=[(TENANT, context_id(at), 1, documents[at % len(made)]) for at in range(ROWS)]
        )
        await pool.execute("ANALYZE contexts")
        versions = [1] * ROWS

        async def get(at: int) -> None:
            await pool.fetchrow(_READ, TENANT, context_id(numbers[at]))

        async def put(at: int) -> None:
            row = at % ROWS
            document = documents[(at + 1) % len(made)]
            versions[row] = await pool.fetchval(_WRITE, TENANT, context_id(row), versions[row], document)

        await rate_of(get, count=GETS // 4, at_once=CONNECTIONS)
        return {
            "postgres_get_per_s": await rate_of(get, count=GETS, at_once=CONNECTIONS),
            "postgres_put_per_s": await rate_of(put, count=PUTS, at_once=CONNECTIONS),
        }
