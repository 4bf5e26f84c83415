"""The guide's keys, as the guide writes them."""

from datetime import timedelta
from pathlib import Path

import pytest
from webhook_consumer.settings import ConsumerSettings
from webhook_shared.settings import SettingsError

GUIDE = """
webhook:
  redis:
    addresses: [127.0.0.1:6379]
  consumer:
    consumer_group: webhook-processors
    num_workers: ${CORES * 3}
    batch_size: 100
    block_timeout: 5s
    max_retries: 3
    dead_letter_stream: webhook-events-dlq
    prefetch_count: 1000
  deduplication:
    bloom_filter_size: 10000000
"""


def test_the_guides_file_is_read(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(GUIDE)
    consumer = ConsumerSettings.load(file=file, environ={"CORES": "4"}).webhook.consumer
    assert consumer.num_workers == 12
    assert consumer.block_timeout == timedelta(seconds=5)
    assert (consumer.batch_size, consumer.prefetch_count, consumer.max_retries) == (100, 1000, 3)
    assert (consumer.consumer_group, consumer.dead_letter_stream) == (
        "webhook-processors",
        "webhook-events-dlq",
    )


def test_all_mistakes_are_named_at_once(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("webhook:\n  consumer:\n    num_worker: 3\n    batch_size: 0\n    block_timeout: soon\n")
    with pytest.raises(SettingsError) as refused:
        ConsumerSettings.load(file=file, environ={})
    text = "\n".join(refused.value.problems)
    assert "num_workers" in text
    assert "batch_size" in text
    assert "block_timeout" in text


def test_the_environment_stands_above_the_file(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("webhook:\n  consumer:\n    num_workers: 3\n")
    settings = ConsumerSettings.load(file=file, environ={"WEBHOOK_CONSUMER_WORKERS": "7"})
    assert settings.webhook.consumer.num_workers == 7
