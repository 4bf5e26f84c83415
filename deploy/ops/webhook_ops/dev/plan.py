"""What runs where: the addresses of every process and the environment that tells it so."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from webhook_context.settings import ContextSettings
from webhook_gateway.settings import GatewaySettings
from webhook_shared.rpc.channel import PLAIN
from webhook_shared.settings import RedisSection, TlsSection

from webhook_ops.addresses import SERVICES, Addresses, Process, service_variable
from webhook_ops.dev import embedded_redis
from webhook_ops.dev.ports import HOST, free_addresses, is_free
from webhook_ops.dev.problems import StartError
from webhook_ops.dev.supervisor import Child, Command

HTTP_VARIABLE = "WEBHOOK_HTTP_ADDRESS"
SPOOL_VARIABLE = "WEBHOOK_SPOOL_DIRECTORY"
COLD_VARIABLE = "WEBHOOK_COLD_DIRECTORY"
METRICS_PORT_VARIABLE = "WEBHOOK_METRICS_PORT"

_FIRST_METRICS_PORT = 9100
_EMBEDDED_IS_PLAIN = (
    "a password, TLS or Sentinel is configured for Redis and no address: set REDIS_ADDRESSES, or unset the "
    "others (the embedded Redis listens on this machine alone and has none of them)"
)
#: The order of the services in the range of metrics ports.
_METRICS_ORDER = ("gateway", "security", "consumer", "intelligence", "context")


@dataclass(frozen=True)
class Plan:
    """Where everything is to be.

    Attributes:
        http: host:port of the HTTP edge.
        grpc: Service to host:port.
        metrics: Service to host:port.
        redis: How the processes reach it.
        embeds_redis: Whether Redis is started along with the rest.
        spool: Directory in which the gateway keeps events while Redis is away.
        cold: Directory in which cold contexts lie where there is no bucket.
        tls: What the RPC doors show, and whom to believe.
        https: Whether the HTTP edge has a certificate.
    """

    http: str
    grpc: Mapping[str, str]
    metrics: Mapping[str, str]
    redis: RedisSection
    embeds_redis: bool
    spool: str
    cold: str
    tls: TlsSection = PLAIN
    https: bool = False

    @property
    def url(self) -> str:
        """Base URL of the HTTP edge, without a slash at its end."""
        return f"{'https' if self.https else 'http'}://{self.http}"

    def shared_environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment that all processes have in common."""
        return {
            **base,
            **{service_variable(name): address for name, address in self.grpc.items()},
            HTTP_VARIABLE: self.http,
            "REDIS_ADDRESSES": ",".join(self.redis.addresses),
            SPOOL_VARIABLE: self.spool,
            COLD_VARIABLE: self.cold,
        }

    def environment(self, service: str, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of a service's process."""
        return {
            **self.shared_environment(base),
            "WEBHOOK_LISTEN_ADDRESS": self.grpc[service],
            "WEBHOOK_METRICS_ADDRESS": self.metrics[service],
            "WEBHOOK_LOG_FORMAT": "json",
            "GRPC_VERBOSITY": base.get("GRPC_VERBOSITY", "ERROR"),
            "PYTHONUNBUFFERED": "1",
        }

    def command(self, service: str, base: Mapping[str, str]) -> Command:
        """How to run a service."""
        argv = (sys.executable, "-m", f"webhook_{service}")
        return Command(service, argv, self.environment(service, base))

    def taken(self) -> list[str]:
        """One line for each address that somebody else listens on."""
        wanted = {self.http: HTTP_VARIABLE}
        wanted |= {address: service_variable(name) for name, address in self.grpc.items()}
        problems = [
            f"{address} is in use: end what listens there, or set {variable}=host:port"
            for address, variable in wanted.items()
            if not is_free(address)
        ]
        if busy := [address for address in self.metrics.values() if not is_free(address)]:
            problems.append(
                f"in use, for metrics: {', '.join(busy)}; end what listens there, or set "
                f"{METRICS_PORT_VARIABLE} to the first of {len(SERVICES)} free ports"
            )
        return problems

    def addresses(self, runner_pid: int, children: Mapping[str, Child]) -> Addresses:
        """What `var/addresses.json` says while these processes run."""
        pids = {name: child.pid for name, child in children.items()}
        processes = {
            service: Process(pids.get(service, 0), self.grpc[service], self.metrics[service])
            for service in SERVICES
        }
        if self.embeds_redis:
            processes[embedded_redis.NAME] = Process(pids.get(embedded_redis.NAME, 0))
        return Addresses(runner_pid, self.url, ",".join(self.redis.addresses), processes)


def plan_of(var: Path, environ: Mapping[str, str], *, free_ports: bool) -> Plan:
    """Decide where everything is to be.

    Args:
        var: The directory of the system; remembers the port of the embedded Redis.
        environ: The runner's environment.
        free_ports: Take any free ports instead of the usual ones.

    Raises:
        SettingsError: The configuration can't be read.
        StartError: No address can be had.
    """
    # The gateway reads all that is to be known here: Redis, the services, its own HTTP address.
    webhook = GatewaySettings.load(environ=environ).webhook
    embeds_redis = "addresses" not in webhook.redis.model_fields_set
    if free_ports:
        http, *rest = free_addresses(1 + 2 * len(SERVICES))
        grpc = dict(zip(SERVICES, rest[: len(SERVICES)], strict=True))
        metrics = dict(zip(SERVICES, rest[len(SERVICES) :], strict=True))
    else:
        http = webhook.gateway.http_address
        grpc = {service: getattr(webhook.services, service) for service in SERVICES}
        metrics = _metrics_addresses(environ)
    redis = webhook.redis
    if embeds_redis:
        if redis.tls_enabled or redis.sentinel_enabled or redis.password.get_secret_value():
            raise StartError([_EMBEDDED_IS_PLAIN])
        redis = RedisSection(addresses=(_redis_address(var, free_ports=free_ports),))
    https = bool(webhook.gateway.http_tls_cert_file)
    spool = webhook.gateway.spool.directory or str((var / "spool").resolve())
    cold = _cold_directory(var, environ)
    return Plan(http, grpc, metrics, redis, embeds_redis, spool, cold, webhook.tls, https)


def _cold_directory(var: Path, environ: Mapping[str, str]) -> str:
    cold = ContextSettings.load(environ=environ).webhook.cold_storage
    return str(cold.directory if "directory" in cold.model_fields_set else (var / "cold").resolve())


def _redis_address(var: Path, *, free_ports: bool) -> str:
    if not free_ports:
        return embedded_redis.address(var)
    (address,) = free_addresses(1)
    embedded_redis.remember(var, address)
    return address


def _metrics_addresses(environ: Mapping[str, str]) -> dict[str, str]:
    first = environ.get(METRICS_PORT_VARIABLE) or str(_FIRST_METRICS_PORT)
    if not first.isdecimal():
        raise StartError([f"{METRICS_PORT_VARIABLE} must be a port number"])
    return {service: f"{HOST}:{int(first) + offset}" for offset, service in enumerate(_METRICS_ORDER)}
