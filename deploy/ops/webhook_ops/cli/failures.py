"""How a command fails: one clear line, what to do about it, and an exit code that scripts can rely on."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Never

import grpc
import orjson
from webhook_shared.errors import ServiceError

from webhook_ops.plain_text import visible


class Exit(IntEnum):
    """Exit codes; 2 is a wrong command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5


EXIT_CODES_HELP = (
    "Exit codes: 0 all well · 1 refused, failed or unhealthy · 2 wrong command line · 3 nothing answers · "
    "4 credential missing or not sufficient · 5 no such thing"
)

NOTHING_RUNS_HINT = (
    "start a system with `make run`, or say where one runs: --var DIR, or WEBHOOK_GATEWAY_ADDRESS, "
    "WEBHOOK_SECURITY_ADDRESS, WEBHOOK_CONSUMER_ADDRESS, WEBHOOK_INTELLIGENCE_ADDRESS, "
    "WEBHOOK_CONTEXT_ADDRESS (host:port) and WEBHOOK_HTTP_URL"
)

_EXITS = {
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
    grpc.StatusCode.UNAUTHENTICATED: Exit.NOT_ALLOWED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.NOT_ALLOWED,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
}

_HINTS = {
    "PEER_UNREACHABLE": NOTHING_RUNS_HINT,
    "STORE_UNREACHABLE": "the service runs but its Redis does not answer; `webhook-cli status` shows more",
    "DEADLINE_EXCEEDED": "give it longer with --timeout, or see `webhook-cli status`",
    "CREDENTIAL_INVALID": "give a key: --api-key, WEBHOOK_API_KEY, or the var/operator.key of `make run`",
    "TENANT_NOT_ALLOWED": "choose a tenant that the key covers with --tenant",
    "ROLE_MISSING": "use a key with that role; an operator makes one with `webhook-cli keys create`",
    "CONTEXT_NOT_FOUND": "`webhook-cli contexts list` shows what there is",
    "TENANT_NOT_FOUND": "choose a tenant that there is and that the key covers",
    "ERASURE_UNDER_WAY": "wait for whoever is at it; what died is free after half a minute",
    "ERASURE_INCOMPLETE": "the same command goes on; the places say what could not be erased",
    "TOOL_NOT_PAUSED": "`webhook-cli tools list` shows which tools are",
    "CIRCUIT_BREAKER_NOT_FOUND": "`webhook-cli breakers` shows which tools have had failures lately",
    "DEAD_LETTER_NOT_FOUND": "`webhook-cli dlq list` shows what there is",
    "ARCHIVED_EVENT_NOT_FOUND": "`webhook-cli archive list` shows what there is",
    "ARCHIVE_UNREACHABLE": "look at the bucket or the directory of webhook.cold_storage",
    "REPLAY_DIFFERS": "leave --replay-id out for a new replay",
    "REJECTION_NOT_FOUND": "`webhook-cli rejected list` shows what is kept",
    "QUARANTINED_NOT_FOUND": "`webhook-cli quarantine list` shows what there is",
    "SOURCE_NOT_FOUND": "`webhook-cli sources list` shows what there is",
    "SECRET_NOT_FOUND": "`webhook-cli secrets list` shows what there is",
    "LAST_SECRET": "rotate first: `webhook-cli secrets rotate` adds another one",
}


def fail(message: str, exit_code: Exit, *, reason: str, hint: str = "", as_json: bool = False) -> Never:
    """Say why on standard error, and end.

    Args:
        message: One line.
        exit_code: What the shell gets.
        reason: Stable, UPPER_SNAKE_CASE.
        hint: What to do about it.
        as_json: Write `{"error": {...}}` instead of lines for people.
    """
    if as_json:
        error = {"reason": reason, "message": message, "hint": hint, "exit_code": int(exit_code)}
        sys.stderr.write(orjson.dumps({"error": error}).decode() + "\n")
    else:
        sys.stderr.write(f"error: {visible(message)}\n")
        if hint:
            sys.stderr.write(f"  try: {hint}\n")
    sys.exit(int(exit_code))


def fail_with(error: ServiceError, *, service: str = "", as_json: bool = False) -> Never:
    """The same for what a service answered, or did not."""
    fields = "; ".join(f"{field} {description}" for field, description in error.fields.items())
    where = f"{service}: " if service else ""
    fail(
        f"{where}{error.message}{f' ({fields})' if fields else ''} [{error.code.name}/{error.reason}]",
        _EXITS.get(error.code, Exit.FAILED),
        reason=error.reason,
        hint=_HINTS.get(error.reason, ""),
        as_json=as_json,
    )
