"""Where contexts lie, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.ops.tests.harness import Cli, Runner, until


def _some_context(cli: Cli) -> str:
    assert cli("send", "acme-deploy").code == 0

    def listed() -> Any:
        return cli("contexts", "list", "--tool", "acme-deploy", "--json").json["contexts"]

    found: str = until(listed)[0]["context_id"]
    return found


def _cold_objects(running: Runner) -> list[Path]:
    return [path for path in (running.var / "cold").rglob("*.pack") if path.is_file()]


def test_a_context_goes_to_the_cold_directory_and_comes_back(running: Runner, cli: Cli) -> None:
    context_id = _some_context(cli)
    before = cli("contexts", "get", context_id, "--payloads", "--json").json
    told = cli("contexts", "force-transition", "--tier", "cold", "--id", context_id, "--dry-run")
    assert told.code == 0
    assert "1 would move" in told.out
    assert cli("contexts", "get", context_id, "--json").json["tier"] == "TIER_HOT"

    told = cli("contexts", "force-transition", "--tier", "cold", "--id", context_id, "--json")
    assert told.json["moved_count"] == 1
    assert _cold_objects(running)
    after = cli("contexts", "get", context_id, "--payloads", "--json").json
    assert after["tier"] == "TIER_COLD"
    assert after["events"] == before["events"]

    # As the operations guide has it.
    assert cli("force-transition", "--tier", "hot", "--tool", "acme-deploy").code == 0
    assert cli("contexts", "get", context_id, "--json").json["tier"] == "TIER_HOT"


def test_stats_show_the_tiers(cli: Cli) -> None:
    context_id = _some_context(cli)
    told = cli("contexts", "stats", "--json").json
    assert sum(tier["context_count"] for tier in told["tenants"][0]["tiers"]) > 0
    shown = cli("contexts", "stats")
    assert {"hot", "warm", "cold"} <= set(shown.out.split())
    refused = cli("contexts", "force-transition", "--tier", "warm", "--id", f"{context_id}:no")
    assert (refused.code, "CONTEXT_NOT_FOUND" in refused.err) == (5, True)


def test_a_patch_and_what_was_changed_by_hand(cli: Cli) -> None:
    context_id = _some_context(cli)
    patched = cli("contexts", "patch", context_id, '{"pinned": true, "attributes": {"a": 1}}', "--json").json
    assert (patched["pinned"], patched["attributes_json"]) == (True, '{"a":1}')
    told = cli("contexts", "force-transition", "--tier", "warm", "--id", context_id)
    assert (told.code, "CONTEXT_PINNED" in told.out) == (1, True)
    newest = cli("contexts", "revisions", context_id, "--json").json["revisions"]
    assert any(sorted(one["changed"]) == ["attributes", "pinned"] for one in newest)
    assert cli("contexts", "patch", context_id, '{"pinned": null}').code == 0
    for command in ("force-transition", "stats", "patch", "revisions"):
        assert "Example" in cli("contexts", command, "--help").out
