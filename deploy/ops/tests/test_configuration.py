"""`config check`: the guide's own configuration passes, and every mistake is found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from webhook_ops.configuration import Effective, examine, variables

from deploy.ops.tests.harness import Cli

GUIDE = Path(__file__).parent / "guide"
SECRETS = {"ENCRYPTION_MASTER_KEY": "m" * 48, "WEBHOOK_INTERNAL_KEY": "i" * 48}
#: What the guide's config.yaml itself refers to.
ONLY_REFERRED_TO = {"REDIS_NODE1", "REDIS_NODE2", "REDIS_NODE3"}


def environment() -> dict[str, str]:
    lines = (GUIDE / "environment.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def keys_of(tree: object, path: str = "") -> set[str]:
    """Every leaf of a YAML tree."""
    if isinstance(tree, Mapping) and tree:
        return set().union(*(keys_of(value, f"{path}.{key}".lstrip(".")) for key, value in tree.items()))
    return {path}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def named(found: list[Effective], key: str) -> Effective:
    return next(each for each in found if each.key == key)


def test_the_guides_configuration_passes() -> None:
    found = examine(environment(), file=GUIDE / "config.yaml")
    assert found.problems == []


def test_every_variable_of_the_guide_is_read_by_somebody() -> None:
    assert set(environment()) - set(variables()) == ONLY_REFERRED_TO


def test_every_key_of_the_guide_is_shown_with_its_source() -> None:
    found = examine(environment(), file=GUIDE / "config.yaml")
    shown = {each.key: each for each in found.keys}
    for key in keys_of(yaml.safe_load((GUIDE / "config.yaml").read_text())):
        # Tables by tool are one key each.
        known = next(name for name in shown if key == name or key.startswith(f"{name}."))
        assert shown[known].source in {"file", "env"}, key


def test_what_does_nothing_yet_is_said() -> None:
    found = examine(environment(), file=GUIDE / "config.yaml")
    assert any(line.startswith("observability.metrics.push_gateway: ") for line in found.not_yet)
    quiet = examine(SECRETS)
    assert quiet.not_yet == quiet.strangers == []


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("webhook:\n  redis:\n    master_name: from-file\n    pool_size: 7\n")
    found = examine({**SECRETS, "REDIS_MASTER_NAME": "from-env"}, file=file)
    assert found.problems == []
    assert named(found.keys, "webhook.redis.master_name").value == "from-env"
    assert named(found.keys, "webhook.redis.master_name").source == "env"
    assert named(found.keys, "webhook.redis.pool_size").source == "file"
    assert named(found.keys, "webhook.redis.tls_enabled").source == "default"
    assert "gateway" in named(found.keys, "webhook.redis.pool_size").services


def test_secrets_are_masked_wherever_they_are_shown() -> None:
    found = examine(environment(), file=GUIDE / "config.yaml")
    told = repr(found)
    for variable, value in environment().items():
        if variable.endswith(("_KEY", "_PASSWORD")) and variable != "AWS_ACCESS_KEY_ID":
            assert value not in told, variable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("webhok: {}\n", "webhok: unknown key; did you mean webhook?"),
        ("webhook:\n  consumr: {}\n", "webhook.consumr: unknown key; did you mean consumer?"),
        (
            "webhook:\n  consumer:\n    num_wokers: 3\n",
            "webhook.consumer.num_wokers: unknown key; did you mean num_workers?",
        ),
        ("webhook:\n  redis:\n    pool_size: 0\n", "webhook.redis.pool_size"),
        ("webhook:\n  security:\n    timestamp_tolerance: 5\n", "webhook.security.timestamp_tolerance"),
        ("webhook:\n  redis:\n    password: hunter2\n", "webhook.redis.password"),
        ("webhook:\n  redis:\n    master_name: ${NOWHERE}\n", "variable NOWHERE is not set"),
        ("- a\n- b\n", "the top level must be keys"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    found = examine(SECRETS, file=file)
    assert any(problem in each for each in found.problems), found.problems
    assert "hunter2" not in repr(found)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("webhok: {}\nwebhook:\n  consumer:\n    a: 1\n  security:\n    b: 2\n")
    found = examine({"REDIS_TLS_ENABLED": "perhaps"}, file=file)
    told = "\n".join(found.problems)
    for each in ("webhok", "consumer.a", "security.b", "REDIS_TLS_ENABLED", "ENCRYPTION_MASTER_KEY"):
        assert each in told, told


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert examine(SECRETS, file=tmp_path / "no.yaml").problems


def test_a_misspelt_variable_is_told() -> None:
    found = examine({**SECRETS, "REDIS_ADRESSES": "redis:6379"})
    assert found.strangers == [
        "environment variable REDIS_ADRESSES is read by nobody; did you mean REDIS_ADDRESSES?"
    ]


def test_config_check_on_the_command_line(lonely_cli: Cli, tmp_path: Path) -> None:
    good = lonely_cli("config", "check", **SECRETS)
    assert good.code == 0, good
    assert "webhook.redis.addresses" in good.out
    as_yaml = lonely_cli("config", "check", "--yaml", **SECRETS)
    assert yaml.safe_load(as_yaml.out)["webhook"]["redis"]["addresses"] == ["127.0.0.1:6379"]
    changed = lonely_cli("config", "check", "--changed", "--json", REDIS_MASTER_NAME="other", **SECRETS)
    assert {"webhook.redis.master_name"} <= {key["key"] for key in changed.json["keys"]}
    assert all(key["source"] != "default" for key in changed.json["keys"])
    bad = lonely_cli("config", "check", "--json")
    assert bad.code == 1
    assert len(bad.json["problems"]) == 2
    assert SECRETS["ENCRYPTION_MASTER_KEY"] not in good.out + as_yaml.out + changed.out
