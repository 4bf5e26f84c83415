"""JSON merge patches (RFC 7396)."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 64
"""Levels of nesting that a patch may have."""


class PatchError(ValueError):
    """The text is no JSON object that can be used as a patch."""


def parsed(text: str) -> dict[str, Any]:
    """A merge patch for an object.

    Raises:
        PatchError: It is not JSON, not an object, or nested too deeply.
    """
    try:
        patch = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise PatchError("is not JSON") from None
    if not isinstance(patch, dict):
        raise PatchError("must be a JSON object")
    if _is_deeper(patch, DEEPEST):
        raise PatchError(f"is nested more than {DEEPEST} levels deep")
    return patch


def merged(target: Any, patch: Any) -> Any:
    """The target with the patch applied; neither is changed.

    An object is merged member by member, null removes a member, anything else replaces what was there.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _refuse(constant: str) -> None:
    raise PatchError(f"{constant} is not JSON")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)
