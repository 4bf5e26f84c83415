"""Environment over file over default; every mistake at once; secrets by reference only."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from webhook_shared.settings import (
    ByteCount,
    Duration,
    Group,
    ObservabilitySection,
    RedisSection,
    Section,
    Settings,
    SettingsError,
    setting,
    show_duration,
    unfinished,
)


class QueueSection(Section):
    workers: int = setting(10, env="QUEUE_WORKERS", ge=1, description="Workers.")
    block: Duration = setting(timedelta(seconds=5), description="Block.")
    largest: ByteCount = setting(1024, description="Bytes.")
    later: bool = setting(False, not_yet="it arrives with the next version", description="Later.")


class Shared(Group):
    redis: RedisSection = RedisSection()
    queue: QueueSection = QueueSection()


class Example(Settings):
    webhook: Shared = Shared()
    observability: ObservabilitySection = ObservabilitySection()


def load(tmp_path: Path, text: str, **environ: str) -> Example:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return Example.load(file=file, environ=environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, **environ)
    return caught.value.problems


def test_defaults_hold_where_nobody_says_otherwise() -> None:
    assert Example.load(environ={}).webhook.queue.workers == 10


def test_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "webhook: {queue: {workers: 20, block: 250ms}}"
    assert load(tmp_path, text).webhook.queue.workers == 20
    settings = load(tmp_path, text, QUEUE_WORKERS="30")
    assert settings.webhook.queue.workers == 30
    assert settings.webhook.queue.block == timedelta(milliseconds=250)


def test_an_empty_variable_counts_as_unset() -> None:
    assert Example.load(environ={"QUEUE_WORKERS": ""}).webhook.queue.workers == 10


def test_variables_defaults_and_cores_are_substituted(tmp_path: Path) -> None:
    text = """
webhook:
  redis: {addresses: ["${NODE}", "${OTHER:-b:2}"], password: "${PASSWORD}", sentinel_enabled: true}
  queue: {workers: "${CORES * 3}", largest: 10MiB}
"""
    settings = load(tmp_path, text, NODE="a:1", PASSWORD="hush", CORES="4")
    assert settings.webhook.redis.addresses == ("a:1", "b:2")
    assert settings.webhook.redis.password == SecretStr("hush")
    assert settings.webhook.queue.workers == 12
    assert settings.webhook.queue.largest == 10 * 2**20


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "webhook: {redis: {adresses: [a:1], password: hunter2},"
        " queue: {workers: 0, block: 5, later: '${NOPE}'}}",
    )
    assert found == sorted(found)
    text = "\n".join(found)
    assert "webhook.redis.adresses: unknown key; did you mean addresses?" in text
    assert "webhook.redis.password (REDIS_PASSWORD): a secret does not stand in the file itself" in text
    assert "webhook.queue.workers (QUEUE_WORKERS): input should be greater than or equal to 1" in text
    assert "webhook.queue.block: write a duration with its unit" in text
    assert "webhook.queue.later: variable NOPE is not set" in text
    assert "hunter2" not in text


def test_sections_of_other_services_do_not_matter(tmp_path: Path) -> None:
    settings = load(tmp_path, "webhook: {ai: {model: '${UNSET}'}, queue: {workers: 3}}\nelse: 1")
    assert settings.webhook.queue.workers == 3


@pytest.mark.parametrize("text", ["{", "- a", "just text", "webhook: [1]"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    assert len(problems(tmp_path, text)) == 1


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        Example.load(file=tmp_path / "none.yaml", environ={})


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n", encoding="utf-8")
    for reference, expected in ((f"file:{tmp_path}/secret", "from-file"), ("env:SOME_SECRET", "from-env")):
        text = f"webhook: {{redis: {{password: '{reference}'}}}}"
        settings = load(tmp_path, text, SOME_SECRET="from-env")
        assert settings.webhook.redis.password.get_secret_value() == expected
    assert "is not set" in problems(tmp_path, "webhook: {redis: {password: 'env:NO_SUCH'}}")[0]


def test_secrets_do_not_show() -> None:
    settings = Example.load(environ={"REDIS_PASSWORD": "hush"})
    assert "hush" not in repr(settings)
    assert "hush" not in settings.model_dump_json()


def test_what_a_key_does_not_do_yet_is_said_only_to_whoever_sets_it(tmp_path: Path) -> None:
    assert unfinished(Example.load(environ={})) == []
    assert unfinished(load(tmp_path, "webhook: {queue: {later: true}}")) == [
        "webhook.queue.later has no effect yet: it arrives with the next version"
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("250ms", "250ms"), ("90m", "1h30m"), ("168h", "7d"), ("0s", "0s"), ("1h30m", "1h30m")],
)
def test_durations_are_read_and_shown(tmp_path: Path, text: str, shown: str) -> None:
    assert (
        show_duration(load(tmp_path, f"webhook: {{queue: {{block: {text}}}}}").webhook.queue.block) == shown
    )
