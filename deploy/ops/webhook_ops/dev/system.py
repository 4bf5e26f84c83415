"""A whole running system, for `make run` and for tests alike."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from webhook_ops.addresses import SERVICES, Addresses
from webhook_ops.configuration import examine
from webhook_ops.dev import embedded_redis, lock, operator_key
from webhook_ops.dev.log_view import LogView
from webhook_ops.dev.plan import Plan, plan_of
from webhook_ops.dev.problems import StartError
from webhook_ops.dev.secrets import dev_secrets
from webhook_ops.dev.supervisor import Child, Supervisor
from webhook_ops.health import Health, grpc_health, http_health

READY_WITHIN_S = 60.0
_POLL_S = 0.1
#: So often may a process end before it has ever been ready; more would only repeat the same trouble.
_FIRST_TRIES = 3

#: Who is drained together, in order: first nothing new comes in, then what is queued rests in Redis.
_DRAIN_ORDER = (("gateway",), ("consumer",), ("intelligence", "context"), ("security",), ("redis",))


@dataclass(frozen=True)
class System:
    """A system that runs.

    Attributes:
        var: Its directory.
        plan: Where everything is.
        operator_key: A credential with every role for every tenant.
        secrets: Environment variable to secret, as the processes have them.
    """

    var: Path
    plan: Plan
    operator_key: str
    secrets: Mapping[str, str]
    _supervisor: Supervisor

    @property
    def addresses(self) -> Addresses:
        """Where everything is now, process ids included."""
        return self.plan.addresses(os.getpid(), self._supervisor.children)

    @property
    def processes(self) -> Mapping[str, Child]:
        """By name: the services, and "redis" where it is embedded."""
        return self._supervisor.children

    def kill(self, name: str) -> None:
        """End a process with SIGKILL; it is started again at once. Await `healthy` to see it back."""
        self.processes[name].kill()

    async def healthy(self, *names: str, within_s: float = READY_WITHIN_S) -> None:
        """Wait until these processes (without names: all) can work.

        Raises:
            StartError: One of them does not come up in time, or not at all.
        """
        wanted = names or tuple(self.processes)
        await asyncio.gather(*(_ready(self.plan, self.processes[name], within_s) for name in wanted))

    async def restart_redis(self) -> None:
        """Kill the embedded Redis with SIGKILL and wait until it has read its file again."""
        self.kill(embedded_redis.NAME)
        await self.healthy(embedded_redis.NAME)


@asynccontextmanager
async def running_system(
    var: Path,
    *,
    log: LogView | None = None,
    free_ports: bool = False,
    fsync: embedded_redis.Fsync = "everysec",
    environ: Mapping[str, str] | None = None,
    services: Sequence[str] = SERVICES,
) -> AsyncIterator[System]:
    """Start a system and drain it at the end.

    Args:
        var: Its directory: secrets, data, addresses. What is there from last time is used again.
        log: Where the log goes; `var/system.log` if None.
        free_ports: Take any free ports instead of the usual ones.
        fsync: How durable the embedded Redis is.
        environ: Instead of this process's environment.
        services: Start only these.

    Raises:
        StartError: With everything that is in the way.
    """
    with lock.owned(var), _log_of(var, log) as view:
        environment = os.environ if environ is None else environ
        secrets = dev_secrets(var, environment)
        base = {**environment, **secrets}
        examination = examine(base)
        if examination.problems:
            raise StartError(examination.problems)
        plan = plan_of(var, base, free_ports=free_ports)
        if taken := plan.taken():
            raise StartError(taken)
        # What keys do not do yet, the processes say themselves.
        for stranger in examination.strangers:
            view.say(stranger, level="warning")
        async with _supervised(var, plan, view) as supervisor:
            if plan.embeds_redis:
                command = embedded_redis.command(var, plan.redis.addresses[0], fsync, environment)
                await _ready(plan, await supervisor.start(command), READY_WITHIN_S)
            elif not await embedded_redis.answers(plan.redis):
                raise StartError([_no_redis(plan)])
            key = await operator_key.operator_key(var, plan.redis)
            children = [await supervisor.start(plan.command(service, base)) for service in services]
            await asyncio.gather(*(_ready(plan, child, READY_WITHIN_S) for child in children))
            yield System(var, plan, key, secrets, supervisor)


@asynccontextmanager
async def _supervised(var: Path, plan: Plan, log: LogView) -> AsyncIterator[Supervisor]:
    """A supervisor that keeps `var/addresses.json` true and drains in order."""

    def write_addresses() -> None:
        plan.addresses(os.getpid(), supervisor.children).write(var)

    async with Supervisor(log, write_addresses) as supervisor:
        try:
            yield supervisor
        finally:
            for together in _DRAIN_ORDER:
                await supervisor.stop(*together)
            Addresses.remove(var)


@contextmanager
def _log_of(var: Path, log: LogView | None) -> Iterator[LogView]:
    if log is not None:
        yield log
        return
    with (var / "system.log").open("w", encoding="utf-8") as stream:
        yield LogView(stream)


def _no_redis(plan: Plan) -> str:
    where = ",".join(plan.redis.addresses)
    return (
        f"Redis at {where} does not answer, or not to these credentials: start it, mend REDIS_PASSWORD and "
        "REDIS_TLS_*, or unset REDIS_ADDRESSES to have one embedded"
    )


def _probe(plan: Plan, name: str) -> Callable[[], Awaitable[bool]]:
    """Whether a process can work now."""

    async def redis() -> bool:
        return await embedded_redis.answers(plan.redis)

    async def service() -> bool:
        return await grpc_health(plan.grpc[name], tls=plan.tls) is Health.SERVING

    async def gateway() -> bool:
        return await service() and await http_health(plan.url, tls=plan.tls) is Health.SERVING

    return {embedded_redis.NAME: redis, "gateway": gateway}.get(name, service)


async def _ready(plan: Plan, child: Child, within_s: float) -> None:
    name, probe = child.command.name, _probe(plan, child.command.name)
    patience_ends = time.monotonic() + within_s
    while not (child.pid and await probe()):
        if child.failure:
            raise StartError([child.failure], list(child.last_lines))
        if not child.proved and child.restarts >= _FIRST_TRIES:
            raise StartError([f"{name} ended {child.restarts} times at its start"], list(child.last_lines))
        if time.monotonic() > patience_ends:
            raise StartError([f"{name} was not ready within {within_s:g} s"], list(child.last_lines))
        await asyncio.sleep(_POLL_S)
    child.proved = True
