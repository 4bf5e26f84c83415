"""What a user sees when everything is up: addresses, the operator key, and commands that work when pasted."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import shlex
import sys
import uuid
from pathlib import Path

import orjson

from webhook_ops.addresses import SERVICES
from webhook_ops.dev.secrets import operator_key_file, secret_variable
from webhook_ops.dev.system import System

_REPOSITORY = "octo/hello"
_ISSUE = 7
CONTEXT_ID = f"github:{_REPOSITORY}:issue:{_ISSUE}"

_RULE = "─" * 96


def banner(system: System) -> str:
    """The whole banner, many lines."""
    plan = system.plan
    rows = [
        ("webhooks", f"{plan.url}/webhooks/<tool>"),
        ("health", f"{plan.url}/health/webhook"),
    ]
    rows += [(service, f"{plan.grpc[service]}   metrics {plan.metrics[service]}") for service in SERVICES]
    rows += [
        ("redis", f"{','.join(plan.redis.addresses)}{' (embedded)' if plan.embeds_redis else ''}"),
        ("operator key", f"{system.operator_key}   (kept in {_shown(operator_key_file(system.var))})"),
    ]
    table = "\n".join(f"  {name:<14}{value}" for name, value in rows)
    return "\n".join(
        [
            "",
            _RULE,
            "Webhook System is up.",
            "",
            table,
            "",
            "Send a signed webhook:",
            "",
            curl(system),
            "",
            "Look at what it became:",
            "",
            cli(system, "contexts", "get", CONTEXT_ID),
            "",
            grpcurl(system),
            "",
            "Ctrl-C drains and stops everything; state stays in " + _shown(system.var) + ".",
            _RULE,
        ]
    )


def curl(system: System) -> str:
    """A GitHub webhook, signed with this system's secret; pasted twice, it is a duplicate."""
    body = _payload()
    secret = system.secrets[secret_variable("github")]
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    return " \\\n  ".join(
        [
            f"curl -sS -i {_believing(system)}{system.plan.url}/webhooks/github",
            *(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()),
            f"--data-binary {shlex.quote(body.decode())}",
        ]
    )


def grpcurl(system: System) -> str:
    """The same context over gRPC; reflection tells grpcurl the rest."""
    request = orjson.dumps({"tenant": "default", "context_id": CONTEXT_ID}).decode()
    key = shlex.quote(_shown(operator_key_file(system.var)))
    return " \\\n  ".join(
        [
            f'grpcurl {_shown_certificates(system)} -H "authorization: Bearer $(cat {key})"',
            f"-d {shlex.quote(request)}",
            f"{system.plan.grpc['context']} webhook.context.v1.ContextService/GetContext",
        ]
    )


def cli(system: System, *arguments: str) -> str:
    """A webhook-cli command line for this system."""
    program = _shown(Path(sys.executable).with_name("webhook-cli"))
    var = [] if _shown(system.var) == "var" else ["--var", _shown(system.var)]
    return shlex.join([program, *var, *arguments])


def _believing(system: System) -> str:
    plan = system.plan
    return f"--cacert {shlex.quote(plan.tls.ca_file)} " if plan.https and plan.tls.ca_file else ""


def _shown_certificates(system: System) -> str:
    tls = system.plan.tls
    if not tls.cert_file:
        return "-plaintext"
    files = (("cacert", tls.ca_file), ("cert", tls.cert_file), ("key", tls.key_file))
    return " ".join(f"-{option} {shlex.quote(file)}" for option, file in files)


def _payload() -> bytes:
    """A small issue event. No apostrophe, so that it stands in single quotes as it is."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    html = f"https://github.com/{_REPOSITORY}"
    return orjson.dumps(
        {
            "action": "opened",
            "issue": {
                "number": _ISSUE,
                "title": "Checkout fails for baskets above 100 items",
                "body": "Since release 2.4.1 the payment page answers 500 when a basket is large.",
                "state": "open",
                "html_url": f"{html}/issues/{_ISSUE}",
                "user": {"login": "mona"},
                "labels": [{"name": "bug"}],
                "created_at": now,
                "updated_at": now,
            },
            "repository": {"full_name": _REPOSITORY, "html_url": html},
            "sender": {"login": "mona"},
        }
    )


def _shown(path: Path) -> str:
    """As short as it can be from here."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
