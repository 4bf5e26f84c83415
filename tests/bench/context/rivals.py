"""The same reads and writes by a bare RPC and by PostgreSQL."""

from __future__ import annotations

import random
from typing import Any

import orjson
from google.protobuf.field_mask_pb2 import FieldMask
from webhook.context.v1.context_pb2 import Context
from webhook.context.v1.context_service_pb2 import UpdateContextRequest

from tests.bench.consume.corpus import Payload
from tests.bench.context.corpus import SEED, TENANT, context_id
from tests.bench.context.house import House, echoing, postgres
from tests.bench.context.pace import rate_of
from tests.bench.context.reading import GETS, get_request

CONNECTIONS = 16
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
    """Ratios of ours to theirs; ours is measured again right beside."""
    answer = (await house.contexts.GetContext(get_request(0))).SerializeToString()
    request = get_request(0).SerializeToString()
    chance = random.Random(SEED)
    numbers = [chance.randrange(ROWS) for _ in range(GETS)]

    async def own_get(at: int) -> None:
        await house.contexts.GetContext(get_request(numbers[at] % len(made)))

    async def own_put(at: int) -> None:
        context = Context(tenant=TENANT, context_id=context_id(at % len(made)), title=f"Put {at}")
        await house.contexts.UpdateContext(
            UpdateContextRequest(context=context, update_mask=FieldMask(paths=["title"]))
        )

    async with echoing(answer) as echo:

        async def bare(at: int) -> None:
            await echo(request)

        await rate_of(bare, count=GETS // 4)
        floor, own = await rate_of(bare, count=GETS), await rate_of(own_get, count=GETS)
    own_puts = await rate_of(own_put, count=PUTS, at_once=CONNECTIONS)
    theirs = await _postgres(made, numbers)
    return {
        "echo_per_s": round(floor),
        "get_ratio_to_echo": round(own / floor, 2),
        "put_per_s": round(own_puts),
        **{name: round(rate) for name, rate in theirs.items()},
        "ratio_to_postgres_get": round(own / theirs["postgres_get_per_s"], 2),
        "ratio_to_postgres_put": round(own_puts / theirs["postgres_put_per_s"], 2),
    }


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
