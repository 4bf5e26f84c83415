"""How the durable Redis is set, and how it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError, Server, WrongForm, connect, look
from webhook_shared.redis.capabilities import OPTIONAL
from webhook_shared.rpc.tls import stays_on_this_machine
from webhook_shared.settings import RedisSection

from webhook_ops.doctor.edge import skew
from webhook_ops.doctor.finding import Finding, failed, passed, skipped, warned

AREA = "redis"

OLDEST = (6, 2)
SLOW_PING_S = 0.005
FULL_SHARE = 0.8
CLOCK_WITHIN_S = 1.0
_PINGS = 5

_CONFIGURED = ("maxmemory-policy", "appendonly", "appendfsync")


async def examine(redis: RedisSection) -> list[Finding]:
    """Look at the server that the settings name."""
    try:
        client = connect(redis)
    except ValueError as error:
        return [failed(AREA, "address", str(error), "mend REDIS_ADDRESSES")]
    try:
        return [*_transport(redis), *await _looked_at(client)]
    except WrongForm as error:
        return [failed(AREA, "address", str(error), "mend REDIS_ADDRESSES or REDIS_SENTINEL_ENABLED")]
    except REDIS_TROUBLE as error:
        where = ",".join(redis.addresses)
        return [
            skipped(
                AREA,
                "reachable from here",
                f"{where} does not answer ({type(error).__name__})",
                "run the doctor where the services run, or set REDIS_ADDRESSES and REDIS_PASSWORD",
            )
        ]
    finally:
        await client.aclose()


async def _looked_at(client: Client) -> list[Finding]:
    round_trips_s = []
    for _ in range(_PINGS):
        started_s = time.perf_counter()
        await client.ping()
        round_trips_s.append(time.perf_counter() - started_s)
    seconds, microseconds = await client.time()
    drift_s = int(seconds) + int(microseconds) / 1e6 - time.time()
    info: Mapping[str, Any] = await client.info()
    findings = [
        _version(info),
        _form(await look(client)),
        _latency(min(round_trips_s)),
        skew("redis", drift_s, within_s=CLOCK_WITHIN_S),
        _memory(info),
        _persistence(info),
        _replicas(info),
    ]
    try:
        configured = {name: await _configured(client, name) for name in _CONFIGURED}
    except RedisError:
        return [*findings, skipped(AREA, "configuration", "CONFIG GET is not allowed to this user")]
    return [*findings, _policy(configured), _durability(configured)]


async def _configured(client: Client, name: str) -> str:
    found: Mapping[Any, Any] = await client.config_get(name)
    (value,) = found.values() or ("",)
    return value.decode() if isinstance(value, bytes) else str(value)


def _transport(redis: RedisSection) -> list[Finding]:
    if redis.tls_enabled:
        return [passed(AREA, "transport", "TLS")]
    if all(stays_on_this_machine(address) for address in redis.addresses):
        return [passed(AREA, "transport", "plain text on this machine")]
    return [warned(AREA, "transport", "plain text over a network", "set REDIS_TLS_ENABLED and REDIS_TLS_*")]


def _version(info: Mapping[str, Any]) -> Finding:
    told = str(info.get("valkey_version") or info.get("redis_version", ""))
    numbers = tuple(
        int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdecimal()
    )
    if numbers >= OLDEST:
        return passed(AREA, "version", told)
    return failed(AREA, "version", told, "6.2 is the oldest that is supported")


def _form(server: Server) -> Finding:
    has = ", ".join(name for name in OPTIONAL if name in server.commands) or "nothing that came after 6.2"
    if server.missing:
        return failed(AREA, "form", str(server), f"it lacks {', '.join(sorted(server.missing))}")
    masters = f", {server.masters} masters" if server.masters > 1 else ""
    return passed(AREA, "form", f"{server.vendor}, {server.form}{masters}; has {has}")


def _latency(seconds: float) -> Finding:
    seen = f"{seconds * 1000:.1f} ms"
    if seconds <= SLOW_PING_S:
        return passed(AREA, "round trip", seen)
    return warned(
        AREA, "round trip", seen, "each batch of deliveries waits for one: move them closer together"
    )


def _memory(info: Mapping[str, Any]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        return warned(
            AREA,
            "memory",
            f"{used // 2**20} MiB, without a limit",
            "set maxmemory: then a full server refuses (and events are spooled) instead of being killed",
        )
    seen = f"{used // 2**20} of {most // 2**20} MiB"
    if used <= FULL_SHARE * most:
        return passed(AREA, "memory", seen)
    return failed(AREA, "memory", seen, "give it more, or see with `webhook-cli status` what is piling up")


def _persistence(info: Mapping[str, Any]) -> Finding:
    states = {
        name: str(info.get(name, "ok")) for name in ("aof_last_write_status", "aof_last_bgrewrite_status")
    }
    bad = [name for name, state in states.items() if state != "ok"]
    if not bad:
        return passed(AREA, "last writes to disk", "ok")
    return failed(AREA, "last writes to disk", f"{', '.join(bad)}: failed", "see its disk and its log")


def _replicas(info: Mapping[str, Any]) -> Finding:
    count = int(info.get("connected_slaves", 0))
    if str(info.get("role")) != "master":
        return failed(AREA, "role", "a replica", "let REDIS_ADDRESSES name the master, or the Sentinels")
    if count:
        return passed(AREA, "replicas", str(count))
    return warned(AREA, "replicas", "none", "without one, this machine's disk is the only copy")


def _policy(configured: Mapping[str, str]) -> Finding:
    policy = configured["maxmemory-policy"]
    if policy == "noeviction":
        return passed(AREA, "maxmemory-policy", policy)
    return failed(
        AREA, "maxmemory-policy", policy, "set noeviction: any other drops queued events silently when full"
    )


def _durability(configured: Mapping[str, str]) -> Finding:
    if configured["appendonly"] != "yes":
        return failed(
            AREA,
            "append-only file",
            "off",
            "set appendonly yes: a restart loses every accepted event otherwise",
        )
    fsync = configured["appendfsync"]
    if fsync == "no":
        return failed(AREA, "append-only file", "appendfsync no", "set appendfsync everysec or always")
    lost = "nothing" if fsync == "always" else "at most the last second"
    return passed(AREA, "append-only file", f"appendfsync {fsync}: a crash loses {lost}")
