"""Forgetting, from the command line, in a whole system."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from webhook_shared import redis
from webhook_shared.settings import RedisSection

from deploy.ops.tests.harness import Cli, Runner, until

TOOL = "acme-deploy"
PLANTED = "quokka-of-zanzibar"
OURS = ("--tenant", "default")
NAMES_STAY = (b"dedup:", b"archive:{webhook-archive}:forgotten", b"webhook-audit")


def _contexts(cli: Cli) -> list[Any]:
    found = cli("contexts", "list", "--tool", TOOL, "--json").json["contexts"]
    return [context for context in found if ":forge-" in context["context_id"]]


def _planted(cli: Cli, tmp_path: Path, count: int) -> list[str]:
    for number in range(count):
        body = tmp_path / f"{number}.json"
        said = {"id": f"forge-{number}", "title": PLANTED, "by": {"login": PLANTED}, "n": number}
        body.write_text(json.dumps(said), encoding="utf-8")
        assert cli("send", TOOL, "--event", "made", "--payload", str(body)).code == 0
    found = until(lambda: contexts if len(contexts := _contexts(cli)) == count else None)
    return [context["context_id"] for context in found]


async def _lies(address: str, *, but: tuple[bytes, ...] = ()) -> bytes:
    """Every key and value, but for keys that begin so."""
    client = redis.connect(RedisSection(addresses=[address]))
    held: list[bytes] = []
    try:
        async for key in client.scan_iter():
            if key.startswith(but or (b"\0",)):
                continue
            held += [key, await client.dump(key) or b""]
            if await client.type(key) == b"hash":
                held += [part for pair in (await client.hgetall(key)).items() for part in pair]
    finally:
        await client.aclose()
    return b"\n".join(held)


def test_a_subject_is_forgotten_in_the_whole_system(running: Runner, cli: Cli, tmp_path: Path) -> None:
    ids = _planted(cli, tmp_path, 2)
    known = [cli("contexts", "get", one, "--json").json for one in ids]
    event_ids = [event["event_id"] for context in known for event in context["events"]]
    assert len(event_ids) == 2
    assert cli("contexts", "force-transition", "--tier", "cold", "--id", ids[0]).code == 0
    rehearsed = cli("erase", "subject", PLANTED, *OURS, "--dry-run", "--json").json
    found = {place["name"]: place["found_count"] for place in rehearsed["places"]}
    assert (found["events"], found["archive"], rehearsed["certificate_json"]) == (2, 2, "")
    assert len(_contexts(cli)) == 2

    kept = tmp_path / "certificate.json"
    told = cli("erase", "subject", PLANTED, *OURS, "--certificate", str(kept), "--json")
    assert (told.code, told.json["done"]) == (0, True)
    assert _contexts(cli) == []
    # Whatever else there is resembles the name a little.
    alike = cli("contexts", "search", PLANTED, "--json").json["matches"]
    assert not {match["context"]["context_id"] for match in alike} & set(ids)
    for event_id in event_ids:
        assert cli("archive", "show", event_id).code == 5
    address = running.addresses.redis
    files = [path for path in (running.var / "cold").rglob("*") if path.is_file()]
    objects = b"\n".join(str(path).encode() + path.read_bytes() for path in files)
    assert PLANTED.encode() not in asyncio.run(_lies(address)) + objects
    # Ids stay where they keep the event from coming back: with duplicates, in notes, on the record.
    lies = asyncio.run(_lies(address, but=NAMES_STAY)) + objects
    for event_id in event_ids:
        assert event_id.encode() not in lies

    key = cli("erase", "key").out.strip()
    # With the key it needs nobody; the certificate says what it is about to whoever knows that.
    verified = cli("erase", "verify", str(kept), "--key", key, "--about", f"default/{PLANTED}", "--json")
    assert (verified.code, verified.json["complete"]) == (0, True)
    assert PLANTED not in kept.read_text(encoding="utf-8")
    assert cli("erase", "verify", str(kept)).code == 0
    assert cli("erase", "verify", str(kept), "--about", "default/somebody").code == 1
    assert "NOT_GENUINE" in cli("erase", "verify", str(kept), "--key", "00" * 32, "--json").err
    kept.write_text(kept.read_text(encoding="utf-8").replace('"complete": true', '"complete": false'))
    assert "changed" in cli("erase", "verify", str(kept), "--key", key).err
    (listed,) = [
        one
        for one in cli("erase", "list", "--json").json["erasures"]
        if one["erasure_id"] == told.json["erasure_id"]
    ]
    assert (listed["scope"], listed["complete"]) == ("subject", True)


def test_what_can_not_be_erased(cli: Cli, tmp_path: Path) -> None:
    assert cli("erase", "context", "no:such:context", *OURS).code == 5
    assert cli("erase", "tenant", "nobody", "--yes", "nobody").code == 5
    assert cli("erase", "tenant", "default", "--yes", "another").code == 2
    assert cli("erase", "subject", "...", *OURS).code == 2
    assert cli("erase", "verify", str(tmp_path / "none")).code == 2
    assert cli("erase", "verify", str(tmp_path / "none"), "--key", "zz").code == 2
    for command in ("context", "subject", "tenant", "verify", "list", "key"):
        assert "Example" in cli("erase", command, "--help").out
