"""The configuration as the whole system reads it: every key, its value, and where that came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from webhook_consumer.settings import ConsumerSettings
from webhook_context.settings import ContextSettings
from webhook_gateway.settings import GatewaySettings
from webhook_intelligence.settings import IntelligenceSettings
from webhook_security.settings import SecuritySettings
from webhook_shared.rpc.identity import SHORTEST_INTERNAL_KEY, Certificates
from webhook_shared.sealing.master_keys import SHORTEST_MASTER_KEY
from webhook_shared.settings import (
    EncryptionSection,
    Group,
    IdentitySection,
    Settings,
    SettingsError,
    TlsSection,
    config_file,
    environment_of,
    not_yet_of,
    owned_by,
    read_file,
    section_of,
    walk,
)

SETTINGS: Mapping[str, type[Settings]] = {
    "security": SecuritySettings,
    "context": ContextSettings,
    "intelligence": IntelligenceSettings,
    "consumer": ConsumerSettings,
    "gateway": GatewaySettings,
}

_INTERNAL_KEY = ("webhook", "identity", "internal_key")

#: The shortest that the secrets may be without which no process starts.
_SHORTEST = {
    "webhook.encryption.master_key": SHORTEST_MASTER_KEY,
    "webhook.identity.internal_key": SHORTEST_INTERNAL_KEY,
}

#: How like a known variable an unknown one must look to be taken for a slip.
_SLIP_SIMILARITY = 0.85

#: Read by the runner, the command line or the settings themselves; beside them each tool's secret is.
_READ_ELSEWHERE = frozenset(
    {
        "WEBHOOK_API_KEY",
        "WEBHOOK_CONFIG",
        "WEBHOOK_HTTP_URL",
        "WEBHOOK_METRICS_PORT",
        "WEBHOOK_TENANT",
        "WEBHOOK_VAR",
    }
)

KeyPath = tuple[str, ...]


class _Needed(Group):
    encryption: EncryptionSection = EncryptionSection()
    identity: IdentitySection = IdentitySection()
    tls: TlsSection = TlsSection()


class _NeededSettings(Settings):
    """What no process starts without."""

    webhook: _Needed = _Needed()


@dataclass(frozen=True)
class Effective:
    """One key as it holds.

    Attributes:
        key: "webhook.redis.addresses".
        value: As JSON would write it; secrets are masked.
        source: "default", "file", or "env".
        variable: The environment variable that sets it, or could; empty where there is none.
        not_yet: What it does not do yet; empty where it does all it says.
        services: Who reads it.
        description: One sentence.
    """

    key: str
    value: Any
    source: str
    variable: str
    not_yet: str
    services: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Examination:
    """What is found.

    Attributes:
        file: The file that was read; None where there is none.
        problems: One line each; empty where every service could start.
        not_yet: One line for each key that somebody set and that does not do (all of) its work yet.
        strangers: One line for each environment variable that looks like one of ours and is none.
        keys: In the order of the models; those that only a service with problems reads are left out.
    """

    file: Path | None
    problems: list[str]
    not_yet: list[str]
    strangers: list[str]
    keys: list[Effective]


def examine(environ: Mapping[str, str], *, file: Path | None = None) -> Examination:
    """Read environment and file as each service would.

    Args:
        environ: The environment that the services would have.
        file: Instead of WEBHOOK_CONFIG or ./config.yaml.
    """
    found = config_file(file, environ)
    problems: list[str] = []
    tree = read_file(found, environ, frozenset[KeyPath]().union(*map(owned_by, SETTINGS.values())), problems)
    problems += _unknown_keys(tree)
    problems += _missing_secrets(found, environ)
    keys: dict[str, Effective] = {}
    for service, model in SETTINGS.items():
        try:
            settings = model.load(file=found, environ=environ)
        except SettingsError as error:
            problems += error.problems
            continue
        for effective in _effective(service, settings, tree, environ):
            known = keys.get(effective.key)
            keys[effective.key] = _joined(known, effective) if known else effective
    effective_keys = list(keys.values())
    return Examination(
        file=found,
        problems=sorted(set(problems)),
        not_yet=[
            f"{key.key}: {key.not_yet}" for key in effective_keys if key.not_yet and key.source != "default"
        ],
        strangers=_strangers(environ),
        keys=effective_keys,
    )


def variables() -> dict[str, str]:
    """Every environment variable that a service reads, with the key that it sets."""
    return {
        variable: ".".join(path)
        for model in SETTINGS.values()
        for path, field in walk(model)
        if (variable := environment_of(field))
    }


def _effective(
    service: str, settings: Settings, tree: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[Effective]:
    dumped = settings.model_dump(mode="json")
    for path, field in walk(type(settings)):
        variable = environment_of(field) or ""
        source = "env" if variable and environ.get(variable) else "file" if _is_in(tree, path) else "default"
        yield Effective(
            key=".".join(path),
            value=_at(dumped, path),
            source=source,
            variable=variable,
            not_yet=not_yet_of(field) or "",
            services=(service,),
            description=field.description or "",
        )


def _joined(first: Effective, second: Effective) -> Effective:
    return replace(
        first,
        services=(*first.services, *second.services),
        not_yet=first.not_yet or second.not_yet,
    )


def _missing_secrets(file: Path | None, environ: Mapping[str, str]) -> list[str]:
    try:
        settings = _NeededSettings.load(file=file, environ=environ)
    except SettingsError as error:
        return error.problems
    problems = []
    for path, field in walk(_NeededSettings):
        shortest = _SHORTEST.get(".".join(path))
        if path == _INTERNAL_KEY and _certificates_suffice(settings):
            continue
        if shortest and len(_attribute(settings, path).get_secret_value()) < shortest:
            problems.append(
                f"{'.'.join(path)} ({environment_of(field)}): needs at least {shortest} random characters; "
                "make them with `openssl rand -base64 48`"
            )
    return problems


def _certificates_suffice(settings: _NeededSettings) -> bool:
    """Whether our processes know each other without a common key."""
    webhook = settings.webhook
    if webhook.identity.internal_key.get_secret_value():
        return False
    return Certificates(webhook.identity, webhook.tls).know_ours


def _strangers(environ: Mapping[str, str]) -> list[str]:
    known = variables()
    told = []
    for name in sorted(set(environ) - set(known) - _READ_ELSEWHERE):
        near = difflib.get_close_matches(name, known, n=1, cutoff=_SLIP_SIMILARITY)
        if near and not name.endswith("_WEBHOOK_SECRET"):
            told.append(f"environment variable {name} is read by nobody; did you mean {near[0]}?")
    return told


def _unknown_keys(tree: Mapping[str, Any]) -> list[str]:
    """Keys at the levels that services share, where each of them alone must let the others' keys pass."""
    known: dict[KeyPath, set[str]] = {}
    for model in SETTINGS.values():
        for path, group in _groups(model):
            known.setdefault(path, set()).update(group.model_fields)
    problems = []
    for path, names in known.items():
        level = _at(tree, path) if _is_in(tree, path) else {}
        for key in level if isinstance(level, Mapping) else ():
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(names))}"
                problems.append(f"{'.'.join((*path, key))}: unknown key; {hint}")
    return problems


def _groups(model: type[BaseModel], path: KeyPath = ()) -> Iterator[tuple[KeyPath, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None and issubclass(inner, Group):
            yield from _groups(inner, (*path, name))


def _is_in(tree: Mapping[str, Any], path: KeyPath) -> bool:
    level: Any = tree
    for name in path:
        if not isinstance(level, Mapping) or name not in level:
            return False
        level = level[name]
    return True


def _at(tree: Mapping[str, Any], path: KeyPath) -> Any:
    level: Any = tree
    for name in path:
        level = level[name]
    return level


def _attribute(model: BaseModel, path: KeyPath) -> Any:
    level: Any = model
    for name in path:
        level = getattr(level, name)
    return level
