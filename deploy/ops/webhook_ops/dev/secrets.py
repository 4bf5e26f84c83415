"""The secrets of a dev system: made once, kept under `var/secrets`, readable by their owner alone.

What the operator's environment says wins, and is not written down.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path


def _hex() -> str:
    return secrets.token_hex(32)


def _master_key() -> str:
    return base64.b64encode(secrets.token_bytes(48)).decode()


def _standard_webhooks() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


#: Environment variable to how its value is made.
_MADE: Mapping[str, Callable[[], str]] = {
    "ENCRYPTION_MASTER_KEY": _master_key,
    "WEBHOOK_INTERNAL_KEY": _hex,
    "GITHUB_WEBHOOK_SECRET": _hex,
    "GITLAB_WEBHOOK_SECRET": _hex,
    "JIRA_WEBHOOK_SECRET": _hex,
    "SLACK_WEBHOOK_SECRET": _hex,
    "STANDARD_WEBHOOKS_WEBHOOK_SECRET": _standard_webhooks,
    "ACME_DEPLOY_WEBHOOK_SECRET": _hex,
}

DIRECTORY = "secrets"


def secret_variable(tool: str) -> str:
    """The environment variable that holds the secret of a tool: acme-deploy, ACME_DEPLOY_WEBHOOK_SECRET."""
    return f"{tool.upper().replace('-', '_')}_WEBHOOK_SECRET"


def dev_secrets(var: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Every secret that the processes need, by environment variable; the missing ones are made."""
    directory = var / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    return {name: environ.get(name) or _kept(directory / name, make) for name, make in _MADE.items()}


def kept_secrets(var: Path) -> dict[str, str]:
    """The secrets that a dev system has made, by environment variable; empty where there is none."""
    files = (var / DIRECTORY / name for name in _MADE)
    return {file.name: file.read_text(encoding="utf-8").strip() for file in files if file.is_file()}


def operator_key_file(var: Path) -> Path:
    """Where the operator key of a dev system is kept."""
    return var / "operator.key"


def kept_operator_key(var: Path) -> str:
    """The operator key of the system on this directory; empty where it has none."""
    try:
        return operator_key_file(var).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all, and durably."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    _sync_directory(file.parent)


def _kept(file: Path, make: Callable[[], str]) -> str:
    if file.exists() and (value := file.read_text(encoding="utf-8").strip()):
        return value
    value = make()
    write_private(file, f"{value}\n")
    return value


def _sync_directory(directory: Path) -> None:
    # Losing the master key is losing everything sealed with it: its name must be durable, too.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
