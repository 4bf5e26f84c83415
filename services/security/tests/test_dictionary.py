"""The shipped dictionaries: used, worth their size, and empty of anybody's data."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import orjson
from webhook_shared import compression

NAMES = (
    b"mona",
    b"hubot",
    b"payments",
    b"checkout",
    b"octocat",
    b"codertocat",
    b"hello-world",
    b"octo-org",
    b"octo-repo",
    b"octocoders",
    b"monalisa",
)


def test_it_is_the_one_that_is_used() -> None:
    for name in ("github", "gitlab", "jira", "slack"):
        dictionary = compression.shipped(name)
        assert dictionary is not None
        made = [one.generation for one in compression.all_shipped() if one.name == name]
        assert dictionary.generation == max(made)
    assert compression.shipped("stripe") is None


def test_it_holds_no_name_of_the_examples() -> None:
    for file in (files("webhook_shared") / "dictionaries" / "shipped").iterdir():
        if file.name.endswith(".zdict"):
            content = file.read_bytes().lower()
            assert not [name for name in NAMES if name in content]


def test_events_shrink_with_it(judge: Any, sign: Any, deliver: Any) -> None:
    urls = ("repos", "events", "forks", "keys", "hooks", "issues", "branches", "tags", "labels")
    repository = {f"{name}_url": f"https://api.github.com/repos/qzpfo/mwkra/{name}" for name in urls}
    user = {"login": "qzpfo", "type": "User", "site_admin": False, "gravatar_id": ""}
    user |= {f"{name}_url": f"https://api.github.com/users/qzpfo/{name}" for name in ("followers", "orgs")}
    body = orjson.dumps({"action": "opened", "repository": repository | {"owner": user}, "sender": user})
    verdict = judge(deliver("github", body, sign.github(body)))
    event = judge.opened(verdict).SerializeToString()
    without = judge.keyring.seal("default", event, "event", verdict.event.id)
    # Of which 200 bytes are the envelope's, with and without.
    assert len(verdict.event.sealed) < 0.75 * len(without)
