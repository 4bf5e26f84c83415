"""Typed settings: environment over file over default, and every mistake reported at once.

A service declares one `Settings` model whose fields are `Group`s and `Section`s shaped like
`config.yaml`. A field made by `setting(...)` names its environment variable, so the model is the only
list of variables there is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

CONFIG_FILE_VARIABLE = "WEBHOOK_CONFIG"
DEFAULT_CONFIG_FILE = Path("config.yaml")

_REFERENCE = re.compile(
    r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:\s*\*\s*(?P<times>\d+)|:-(?P<default>[^}]*))?\}"
)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = re.compile(r"^(\d+)\s*(B|KB|KiB|MB|MiB|GB|GiB)?$")
_FLAGS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_BYTE_UNITS = {"B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


# What `env:NAME` refers to while settings are loaded; later it is the process's own environment.
_environment: ContextVar[Mapping[str, str]] = ContextVar("environment")


class SettingsError(Exception):
    """The configuration can't be used.

    Attributes:
        problems: One line each: where, what is wrong, what would be right.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class FromEnvironment(str):
    """A value that came out of an environment variable, so a secret may be one."""

    __slots__ = ()


def _parse_duration(value: object) -> object:
    if isinstance(value, str):
        text = value.strip()
        if text and _DURATION_PART.sub("", text) == "":
            return timedelta(seconds=sum(float(n) * _SECONDS[u] for n, u in _DURATION_PART.findall(text)))
        raise ValueError("write a duration as 250ms, 5s, 30m, 168h or 7d")
    if isinstance(value, timedelta):
        return value
    raise ValueError("write a duration with its unit: 250ms, 5s, 30m, 168h or 7d")


def show_duration(value: timedelta) -> str:
    """A duration as the configuration writes it: "5s", "1h30m"."""
    milliseconds = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _parse_byte_count(value: object) -> object:
    if isinstance(value, str):
        match = _BYTES.match(value.strip())
        if match is None:
            raise ValueError("write a size as 10485760, 512KiB or 10MiB")
        return int(match[1]) * _BYTE_UNITS[match[2] or "B"]
    return value


def _resolve_secret(value: object) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("write a secret as env:NAME or file:PATH")
    if isinstance(value, FromEnvironment):
        return SecretStr(str(value))
    return SecretStr(read_secret(value))


def read_secret(reference: str) -> str:
    """The secret that `env:NAME` or `file:PATH` refers to, without a trailing newline.

    Raises:
        ValueError: It is no reference, or what it refers to can't be read.
    """
    kind, _, where = reference.partition(":")
    if kind == "env" and where:
        environment = _environment.get(os.environ)
        if where not in environment:
            raise ValueError(f"environment variable {where} is not set")
        return environment[where]
    if kind == "file" and where:
        try:
            return Path(where).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"file {where} can't be read ({type(error).__name__})") from None
    raise ValueError("a secret does not stand in the file itself: write env:NAME or file:PATH")


def _parse_flag(value: object) -> object:
    # A Literal takes no text for a truth value, and an environment has nothing else.
    return _FLAGS.get(value.strip().lower(), value) if isinstance(value, str) else value


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return [type(value)(part.strip()) for part in value.split(",") if part.strip()]
    return value


Duration = Annotated[
    timedelta, BeforeValidator(_parse_duration), PlainSerializer(show_duration, return_type=str)
]
ByteCount = Annotated[int, BeforeValidator(_parse_byte_count), Field(ge=0)]
Secret = Annotated[SecretStr, BeforeValidator(_resolve_secret)]
SecretList = Annotated[tuple[Secret, ...], BeforeValidator(_split_list)]
AddressList = Annotated[tuple[str, ...], BeforeValidator(_split_list)]


def setting(
    default: Any, *, env: str | None = None, not_yet: str | None = None, description: str, **constraints: Any
) -> Any:
    """One setting.

    Args:
        default: What holds where nobody says otherwise.
        env: Its environment variable.
        not_yet: What the key does not do yet; said at start-up to whoever sets it.
        description: One sentence, for `webhook-cli config check` and the docs.
        constraints: As of `pydantic.Field`: ge, le, pattern...
    """
    extra: dict[str, Any] = {key: value for key, value in (("env", env), ("not_yet", not_yet)) if value}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Section(BaseModel):
    """One section of the file; a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


class Group(BaseModel):
    """A level of the file that several services share; each reads its own sections of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RedisSection(Section):
    """`webhook.redis`: the durable Redis or Valkey."""

    addresses: AddressList = setting(
        ("127.0.0.1:6379",),
        env="REDIS_ADDRESSES",
        description="host:port of the server, or of the Sentinels where sentinel_enabled.",
    )
    sentinel_enabled: bool = setting(
        False, env="REDIS_SENTINEL_ENABLED", description="Whether the addresses are Sentinels."
    )
    master_name: str = setting(
        "webhook-master", env="REDIS_MASTER_NAME", description="The name that the Sentinels give the master."
    )
    username: str = setting("", env="REDIS_USERNAME", description="ACL user; empty means the default user.")
    password: Secret = setting(SecretStr(""), env="REDIS_PASSWORD", description="Password of the user.")
    tls_enabled: bool = setting(False, env="REDIS_TLS_ENABLED", description="Whether to speak TLS.")
    tls_cert_file: str = setting("", env="REDIS_TLS_CERT_FILE", description="Client certificate, PEM.")
    tls_key_file: str = setting("", env="REDIS_TLS_KEY_FILE", description="Key of the certificate, PEM.")
    tls_ca_file: str = setting("", env="REDIS_TLS_CA_FILE", description="CA that signed the server, PEM.")
    pool_size: int = setting(100, ge=1, le=10_000, description="Most connections of one process.")
    min_idle_conns: int = setting(
        0,
        ge=0,
        not_yet="connections are opened on demand and kept; none are opened ahead",
        description="Connections kept open without work.",
    )
    max_conn_age: Duration = setting(
        timedelta(hours=1),
        not_yet="connections are checked by PING and kept; none is closed for its age",
        description="Age at which a connection is renewed.",
    )
    allow_evicting_policy: bool = setting(
        False, description="Start even where the server may evict the queue under memory pressure."
    )


class QueueSection(Section):
    """The part of `webhook.consumer` that who publishes and who consumes must agree on."""

    stream: str = setting("webhook-events", min_length=1, description="Where the gateway queues events.")
    partitions: int = setting(
        1,
        ge=1,
        le=64,
        env="WEBHOOK_PARTITIONS",
        description="Streams that events are spread over, by tenant and tool: 1 is the stream itself, more "
        "are named stream:0, stream:1... May be changed at any time; what is queued elsewhere is worked off.",
    )


class PublishedQueue(QueueSection):
    """`webhook.consumer`, as far as who publishes reads it."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=False)


class EncryptionSection(Section):
    """`webhook.encryption`: how stored events and contexts are sealed."""

    enabled: Annotated[Literal[True], BeforeValidator(_parse_flag)] = setting(
        True,
        env="WEBHOOK_ENCRYPTION_ENABLED",
        description="Everything stored is sealed; there is no way to switch that off.",
    )
    master_key: Secret = setting(
        SecretStr(""),
        env="ENCRYPTION_MASTER_KEY",
        description="At least 32 characters, random: `openssl rand -base64 48`. It wraps the tenants' keys.",
    )
    previous_master_keys: SecretList = setting(
        (),
        env="ENCRYPTION_PREVIOUS_MASTER_KEYS",
        description="Those before it, the latest first, with commas between, until `keys status` frees them.",
    )


class CertificateSection(Section):
    """One entry of `webhook.identity.certificates`."""

    name: str = Field(min_length=1, description="A SAN URI, or the common name where there is no URI.")
    tenants: tuple[str, ...] = Field(min_length=1, description='"*" means all.')
    roles: tuple[Literal["reader", "writer", "operator"], ...] = Field(min_length=1)


class IdentitySection(Section):
    """`webhook.identity`: how the services know each other."""

    internal_key: Secret = setting(
        SecretStr(""),
        env="WEBHOOK_INTERNAL_KEY",
        description="The credential of our own processes among themselves, at least 32 characters. May stay "
        "empty where they have certificates.",
    )
    internal_certificate: str = setting(
        "spiffe://webhook/internal",
        env="WEBHOOK_INTERNAL_CERTIFICATE",
        description="The name in the certificate of our own processes; empty: no certificate is one of ours.",
    )
    certificates: tuple[CertificateSection, ...] = setting(
        (), description="Whose certificates are credentials: a list of name, tenants, roles."
    )


class TlsSection(Section):
    """`webhook.tls`: how the RPC doors and channels of all services are secured."""

    cert_file: str = setting(
        "", env="WEBHOOK_TLS_CERT_FILE", description="Certificate of this process and its chain, PEM."
    )
    key_file: str = setting("", env="WEBHOOK_TLS_KEY_FILE", description="Key of the certificate, PEM.")
    ca_file: str = setting(
        "", env="WEBHOOK_TLS_CA_FILE", description="Authorities that the others' certificates are from, PEM."
    )
    client_certificates: Literal["required", "none"] = setting(
        "required",
        env="WEBHOOK_TLS_CLIENT_CERTIFICATES",
        description="Whether a caller must show a certificate. With `none` API keys alone say who calls.",
    )
    allow_plain_text: bool = setting(
        False,
        env="WEBHOOK_ALLOW_PLAIN_TEXT",
        description="Speak without TLS to other machines too: only where the network itself is private.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError(
                "cert_file (WEBHOOK_TLS_CERT_FILE) and key_file (WEBHOOK_TLS_KEY_FILE) go together"
            )
        if self.cert_file and not self.ca_file:
            raise ValueError("ca_file (WEBHOOK_TLS_CA_FILE) is needed to know the others' certificates")
        return self


class ServicesSection(Section):
    """`webhook.services`: where the services are, for whoever calls them."""

    gateway: str = setting(
        "127.0.0.1:50050", env="WEBHOOK_GATEWAY_ADDRESS", description="host:port of the gateway's RPC door."
    )
    security: str = setting(
        "127.0.0.1:50051", env="WEBHOOK_SECURITY_ADDRESS", description="host:port of security."
    )
    consumer: str = setting(
        "127.0.0.1:50052", env="WEBHOOK_CONSUMER_ADDRESS", description="host:port of the consumer."
    )
    intelligence: str = setting(
        "127.0.0.1:50053", env="WEBHOOK_INTELLIGENCE_ADDRESS", description="host:port of intelligence."
    )
    context: str = setting(
        "127.0.0.1:50054", env="WEBHOOK_CONTEXT_ADDRESS", description="host:port of the context store."
    )


class MetricsSection(Section):
    """`observability.metrics`."""

    enabled: bool = setting(True, description="Whether /metrics is served.")
    type: Literal["prometheus"] = setting("prometheus", description="The only kind there is.")
    push_gateway: str = setting(
        "",
        env="PROMETHEUS_PUSHGATEWAY",
        not_yet="metrics are scraped from each process's /metrics; nothing is pushed",
        description="URL of a Prometheus Pushgateway.",
    )
    push_interval: Duration = setting(
        timedelta(seconds=30), not_yet="see push_gateway", description="How often to push."
    )


class TracingSection(Section):
    """`observability.tracing`."""

    enabled: bool = setting(True, description="Whether traces are made, given an endpoint.")
    endpoint: str = setting(
        "",
        env="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTLP/gRPC collector, as http://host:4317. Empty: tracing is off and costs nothing.",
    )
    sampling_rate: float = setting(
        0.1, env="OTEL_TRACES_SAMPLER_ARG", ge=0, le=1, description="Share of webhooks that are traced."
    )
    service_name: str = setting(
        "",
        env="OTEL_SERVICE_NAME",
        description="Prefix of the services' names in traces; empty means webhook.",
    )


class LoggingSection(Section):
    """`observability.logging`."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", env="WEBHOOK_LOG_LEVEL", description="The least important level that is written."
    )
    format: Literal["auto", "json", "pretty"] = setting(
        "auto",
        env="WEBHOOK_LOG_FORMAT",
        description="auto: pretty on a terminal, one JSON object per line elsewhere.",
    )


class ObservabilitySection(Section):
    """`observability`: metrics, traces, logs."""

    metrics: MetricsSection = MetricsSection()
    tracing: TracingSection = TracingSection()
    logging: LoggingSection = LoggingSection()


class ProcessSection(Section):
    """`process`: this one process."""

    listen_address: str = setting(
        "", env="WEBHOOK_LISTEN_ADDRESS", description="host:port to serve gRPC on; empty: as services has it."
    )
    metrics_address: str = setting(
        "", env="WEBHOOK_METRICS_ADDRESS", description="host:port to serve /metrics on; empty: not served."
    )
    drain_timeout: Duration = setting(
        timedelta(seconds=10),
        env="WEBHOOK_DRAIN_TIMEOUT",
        description="How long to finish what is in flight after SIGTERM.",
    )


class Settings(BaseSettings):
    """The settings of one process; see `load`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` gives; it has merged environment and file already."""
        return (init_settings,)

    @classmethod
    def load(cls, *, file: Path | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Read environment and file.

        Args:
            file: The YAML file; WEBHOOK_CONFIG, else ./config.yaml if it exists, else none.
            environ: Instead of the process's environment.

        Raises:
            SettingsError: With everything that is wrong.
        """
        environment = os.environ if environ is None else environ
        token = _environment.set(environment)
        try:
            return cls._from(file, environment)
        finally:
            _environment.reset(token)

    @classmethod
    def _from(cls, file: Path | None, environment: Mapping[str, str]) -> Self:
        problems: list[str] = []
        tree = read_file(config_file(file, environment), environment, owned_by(cls), problems)
        merged = _merge(tree, from_environment(cls, environment))
        try:
            settings = cls(**merged)
        except ValidationError as error:
            problems += [_explain(cls, detail) for detail in error.errors()]
        if problems:
            raise SettingsError(sorted(set(problems)))
        return settings


class ServiceGroup(Group):
    """`webhook`, as far as every service reads it; each adds its own sections."""

    redis: RedisSection = RedisSection()
    identity: IdentitySection = IdentitySection()
    services: ServicesSection = ServicesSection()
    tls: TlsSection = TlsSection()


class ServiceSettings(Settings):
    """What every process of ours is told; each service adds its `webhook`."""

    observability: ObservabilitySection = ObservabilitySection()
    process: ProcessSection = ProcessSection()


def config_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one that is named, or the usual one if it is there."""
    if file is not None:
        return file
    if named := environ.get(CONFIG_FILE_VARIABLE):
        return Path(named)
    return DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.exists() else None


def read_file(
    file: Path | None, environ: Mapping[str, str], owned: frozenset[tuple[str, ...]], problems: list[str]
) -> dict[str, Any]:
    """The tree of a YAML file with `${VAR}`, `${VAR:-default}` and `${CORES * N}` replaced.

    Args:
        file: None gives an empty tree.
        environ: Where variables come from; `CORES` is the number of processors unless set.
        owned: Paths of the sections that matter to the caller; elsewhere an unset variable is no problem.
        problems: Grows by what is wrong.
    """
    if file is None:
        return {}
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{file}: can't be read ({error.strerror})")
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        problems.append(f"{file}: is not YAML" + (f" (line {where.line + 1})" if where else ""))
        return {}
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        problems.append(f"{file}: the top level must be keys, such as `webhook:`")
        return {}
    variables = {"CORES": str(os.cpu_count() or 1), **environ}
    substituted = _substitute(tree, (), variables, owned, problems)
    assert isinstance(substituted, dict)
    return substituted


def _substitute(
    node: Any,
    path: tuple[str, ...],
    variables: Mapping[str, str],
    owned: frozenset[tuple[str, ...]],
    problems: list[str],
) -> Any:
    if isinstance(node, dict):
        return {str(k): _substitute(v, (*path, str(k)), variables, owned, problems) for k, v in node.items()}
    if isinstance(node, list):
        return [_substitute(v, path, variables, owned, problems) for v in node]
    if not isinstance(node, str) or "${" not in node:
        return node

    def replace(match: re.Match[str]) -> str:
        value = variables.get(match["name"], match["default"])
        if value is None:
            if any(path[: len(section)] == section for section in owned):
                problems.append(f"{'.'.join(path)}: variable {match['name']} is not set")
            return ""
        if match["times"]:
            if not value.isdecimal():
                problems.append(f"{'.'.join(path)}: variable {match['name']} is not a whole number")
                return ""
            return str(int(value) * int(match["times"]))
        return value

    text = _REFERENCE.sub(replace, node)
    return FromEnvironment(text) if _REFERENCE.fullmatch(node) else text


def walk(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every leaf of a model with its path, depth first."""
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield (*path, name), field
        else:
            yield from walk(inner, (*path, name))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section behind a field, or None where it is a leaf."""
    kind: Any = field.annotation
    for candidate in (kind, *get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, (Section, Group)):
            return candidate if candidate is kind else None
    return None


def owned_by(model: type[BaseModel], path: tuple[str, ...] = ()) -> frozenset[tuple[str, ...]]:
    """The paths of the sections (not groups) that a model reads: {("webhook", "redis"), ...}."""
    found: set[tuple[str, ...]] = set()
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None and issubclass(inner, Group):
            found |= owned_by(inner, (*path, name))
        elif inner is not None:
            found.add((*path, name))
    return frozenset(found)


def environment_of(field: FieldInfo) -> str | None:
    """The environment variable of a setting."""
    extra = field.json_schema_extra
    return str(extra["env"]) if isinstance(extra, dict) and "env" in extra else None


def not_yet_of(field: FieldInfo) -> str | None:
    """What a setting does not do yet."""
    extra = field.json_schema_extra
    return str(extra["not_yet"]) if isinstance(extra, dict) and "not_yet" in extra else None


def from_environment(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    """The tree that the environment variables of a model spell. An empty variable counts as unset."""
    tree: dict[str, Any] = {}
    for path, field in walk(model):
        variable = environment_of(field)
        if variable and environ.get(variable):
            level = tree
            for name in path[:-1]:
                level = level.setdefault(name, {})
            level[path[-1]] = FromEnvironment(environ[variable])
    return tree


def unfinished(settings: Settings) -> list[str]:
    """One line for each key that somebody set and that does not do (all of) its work yet."""
    lines = []
    for path, field in walk(type(settings)):
        reason = not_yet_of(field)
        if reason and _is_set(settings, path):
            lines.append(f"{'.'.join(path)} has no effect yet: {reason}")
    return lines


def _is_set(settings: BaseModel, path: tuple[str, ...]) -> bool:
    level: Any = settings
    for name in path[:-1]:
        if name not in level.model_fields_set:
            return False
        level = getattr(level, name)
    return path[-1] in level.model_fields_set


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            _merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
        )
    return merged


def _explain(model: type[BaseModel], detail: Any) -> str:
    path = tuple(str(part) for part in detail["loc"])
    where = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = _names_at(model, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    variable = next((environment_of(f) for p, f in walk(model) if p == path), None)
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}{f' ({variable})' if variable else ''}: {message[:1].lower()}{message[1:]}"


def _names_at(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    level: type[BaseModel] = model
    for name in path:
        field = level.model_fields.get(name)
        inner = section_of(field) if field else None
        if inner is None:
            return []
        level = inner
    return sorted(level.model_fields)
