"""`webhook-cli config`: what the configuration really says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml

from webhook_ops.cli.door import Json, command_line_of
from webhook_ops.cli.failures import Exit
from webhook_ops.cli.render import console, print_json, table, text
from webhook_ops.configuration import SETTINGS, Effective, Examination, examine
from webhook_ops.dev.secrets import kept_secrets

app = typer.Typer(no_args_is_help=True, help="See what the configuration really says.")


@app.command()
def check(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Instead of WEBHOOK_CONFIG or ./config.yaml.")
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what somebody has set.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As a config.yaml, secrets masked.")] = False,
    as_json: Json = False,
) -> None:
    """Check environment and file as every service would read them, and show what holds.

    Secrets are masked. Exit code 1 with every problem at once where a service could not start. The secrets
    that a dev system has made under --var count as set.

    Example: `webhook-cli config check --file config.yaml --changed`
    """
    environ = {**kept_secrets(command_line_of(ctx).var), **os.environ}
    found = examine(environ, file=file)
    keys = [key for key in found.keys if key.source != "default" or not changed]
    if as_json:
        _print_json(found, keys)
    elif as_yaml:
        sys.stdout.write(yaml.safe_dump(_tree(keys), sort_keys=False, allow_unicode=True))
    else:
        _print_table(found, keys)
    if not as_json:
        for problem in found.problems:
            sys.stderr.write(f"problem: {problem}\n")
        for line in found.not_yet:
            sys.stderr.write(f"not yet: {line}\n")
        for stranger in found.strangers:
            sys.stderr.write(f"note: {stranger}\n")
    sys.exit(Exit.FAILED if found.problems else Exit.OK)


def _print_json(found: Examination, keys: list[Effective]) -> None:
    print_json(
        {
            "file": str(found.file) if found.file else None,
            "problems": found.problems,
            "not_yet": found.not_yet,
            "strangers": found.strangers,
            "keys": keys,
        }
    )


def _print_table(found: Examination, keys: list[Effective]) -> None:
    out = console()
    rows = [
        (
            key.key,
            _shown(key.value),
            key.variable if key.source == "env" else key.source,
            "all" if len(key.services) == len(SETTINGS) else ", ".join(key.services),
            "not yet" if key.not_yet else "",
        )
        for key in keys
    ]
    out.print(text(f"file: {found.file or 'none'}"))
    out.print(table(("key", "value", "from", "read by", ""), rows))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _tree(keys: list[Effective]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in keys:
        *path, last = key.key.split(".")
        level = tree
        for name in path:
            level = level.setdefault(name, {})
        level[last] = key.value
    return tree
