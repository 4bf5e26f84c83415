"""`webhook-cli failover`: another master, and no write lost."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from webhook_shared.redis import REDIS_TROUBLE, RedisError
from webhook_shared.settings import Group, RedisSection, Settings, SettingsError

from webhook_ops.cli.door import Json
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.render import console, print_json, table, text
from webhook_ops.failover import MOST_LAG_BYTES, Done, Failover, FailoverRefused, Plan

_TROUBLE: tuple[type[BaseException], ...] = (RedisError, *REDIS_TROUBLE)


class _Webhook(Group):
    redis: RedisSection = RedisSection()


class _Stored(Settings):
    webhook: _Webhook = _Webhook()


def failover(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say who is master and who could be.")
    ] = False,
    within: Annotated[
        str, typer.Option("--within", help="How long writers may wait; then all is as before.")
    ] = "15s",
    most_lag: Annotated[
        int, typer.Option("--most-lag", min=0, help="Bytes that a successor may lack beforehand.")
    ] = MOST_LAG_BYTES,
    as_json: Json = False,
) -> None:
    """Make another Redis the master, without losing a write: for updates of the server, or of its machine.

    Stops writers at the master, waits until its replicas have everything, has the Sentinels choose the next
    one, and lets writers go on there; they wait for about two seconds. `SENTINEL FAILOVER` alone loses what
    is written meanwhile.

    Needs the settings of the services (REDIS_ADDRESSES, REDIS_SENTINEL_ENABLED, REDIS_MASTER_NAME) and a user
    that may CLIENT PAUSE and REPLICAOF (REDIS_USERNAME, REDIS_PASSWORD).

    Example: `webhook-cli failover --dry-run && webhook-cli failover`
    """
    seconds = lifetime(within).total_seconds()

    def tell(step: str) -> None:
        if not as_json:
            console().print(text(step))

    async def worked() -> Plan | Done:
        redis = _Stored.load().webhook.redis
        async with Failover(redis, tell, within_s=seconds, most_lag_bytes=most_lag) as change:
            return await (change.plan() if dry_run else change.run())

    try:
        came = asyncio.run(worked())
    except SettingsError as error:
        fail(str(error), Exit.USAGE, reason="SETTINGS_INVALID", as_json=as_json)
    except FailoverRefused as error:
        fail(str(error), Exit.FAILED, reason="FAILOVER_REFUSED", as_json=as_json)
    except _TROUBLE as error:
        fail(
            f"a server does not answer as it should: {type(error).__name__}",
            Exit.UNREACHABLE,
            reason="STORE_UNREACHABLE",
            hint="`webhook-cli failover --dry-run` shows who is master now",
            as_json=as_json,
        )
    if as_json:
        print_json(_plain(came))
    elif isinstance(came, Plan):
        rows = [(each.address, each.lag_bytes) for each in came.replicas]
        console().print(text(f"{came.master} is the master; {came.sentinels} Sentinels answer"))
        console().print(table(("could be it", "bytes behind"), rows))
    else:
        console().print(
            text(f"done: {came.old} -> {came.new}, writers waited {came.paused_s:.1f} s", "green")
        )


def _plain(came: Plan | Done) -> dict[str, Any]:
    if isinstance(came, Done):
        return {"old": str(came.old), "new": str(came.new), "paused_s": round(came.paused_s, 3)}
    return {
        "master": str(came.master),
        "replicas": [{"address": str(each.address), "lag_bytes": each.lag_bytes} for each in came.replicas],
        "sentinels": came.sentinels,
    }
