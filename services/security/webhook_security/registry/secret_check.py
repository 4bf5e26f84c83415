"""What is found wrong with configured secrets before anything is served.

A secret that is not there yet makes its source answer 503 until it is. One that is there and empty, or that
no scheme of its source can use, is a mistake that nobody would see: an empty secret is one that all know.
"""

from __future__ import annotations

from collections.abc import Iterable

from webhook_shared.settings import read_secret

from webhook_security.registry.sources import Source


class SecretUnfit(ValueError):
    """A configured secret can't be one; the message is one line and holds none."""


def check(sources: Iterable[Source]) -> None:
    """Read every configured secret that is there.

    Raises:
        SecretUnfit: Some are empty, or fit no scheme of their source.
    """
    problems = [
        f"{source.tenant}/{source.tool}: {problem}"
        for source in sources
        for secret in source.definition.secrets
        if (problem := _problem(source, secret.reference))
    ]
    if problems:
        raise SecretUnfit(f"secrets can't be used: {'; '.join(problems)}")


def _problem(source: Source, reference: str) -> str:
    try:
        value = read_secret(reference)
    except ValueError:
        # Not there: said where sources without a secret are.
        return ""
    if not value.strip():
        return f"{reference} is empty"
    if not source.fits(value):
        forms = sorted({_form(scheme.kind, scheme.key) for scheme in source.row.schemes})
        return f"{reference} is none: it must be {' or '.join(forms)}"
    return ""


def _form(kind: str, key: str) -> str:
    if kind == "basic":
        return "user:password"
    return {"whsec": "whsec_ and base64", "whpk": "whpk_ and base64", "raw": "text"}.get(key, key)
