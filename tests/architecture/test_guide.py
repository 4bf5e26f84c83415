"""What the operations guide promises of the configuration is known to some service."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from webhook_ops.configuration import examine, variables

#: The guide's environment, with values that a machine of ours can read.
ENVIRONMENT = {
    "REDIS_ADDRESSES": "redis-node1:6379,redis-node2:6379,redis-node3:6379",
    "REDIS_SENTINEL_ENABLED": "true",
    "REDIS_MASTER_NAME": "webhook-master",
    "REDIS_PASSWORD": "not-a-real-password",
    "REDIS_TLS_ENABLED": "true",
    "REDIS_TLS_CERT_FILE": "/etc/redis/certs/client.crt",
    "REDIS_TLS_KEY_FILE": "/etc/redis/certs/client.key",
    "REDIS_TLS_CA_FILE": "/etc/redis/certs/ca.crt",
    "WEBHOOK_SIGNATURE_VERIFICATION": "true",
    "WEBHOOK_RATE_LIMITING": "true",
    "WEBHOOK_ENCRYPTION_ENABLED": "true",
    "ENCRYPTION_MASTER_KEY": "kZ3v9QmX2sT7bN4wLr8yGd1hJf6cPa0E",
    "AI_EMBEDDING_PROVIDER": "openai",
    "AI_EMBEDDING_MODEL": "text-embedding-3-small",
    "AI_SUMMARIZATION_MODEL": "gpt-4-turbo",
    "OPENAI_API_KEY": "sk-not-a-real-key",
    "S3_ENDPOINT": "https://s3.amazonaws.com",
    "S3_BUCKET": "devops-mcp-webhook-contexts",
    "S3_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIANOTAREALKEY",
    "AWS_SECRET_ACCESS_KEY": "not-a-real-secret",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel-collector:4317",
    "OTEL_SERVICE_NAME": "webhook-processor",
    "OTEL_TRACES_SAMPLER_ARG": "0.1",
    "PROMETHEUS_PUSHGATEWAY": "http://prometheus-pushgateway:9091",
}
#: What every one of our processes needs beside that; the guide is older.
OURS = {"WEBHOOK_INTERNAL_KEY": "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c"}
NODES = {f"REDIS_NODE{n}": f"redis-node{n}:6379" for n in (1, 2, 3)}

CONFIGURATION = """\
webhook:
  redis:
    addresses: ["${REDIS_NODE1}", "${REDIS_NODE2}", "${REDIS_NODE3}"]
    sentinel_enabled: true
    master_name: webhook-master
    password: ${REDIS_PASSWORD}
    tls_enabled: true
    pool_size: 100
    min_idle_conns: 10
    max_conn_age: 1h
  consumer:
    consumer_group: webhook-processors
    num_workers: 10
    batch_size: 100
    block_timeout: 5s
    max_retries: 3
    dead_letter_stream: webhook-events-dlq
  deduplication:
    window_configs:
      github: {duration: 5m, max_size: 1}
      jira: {duration: 10m, max_size: 3}
    bloom_filter_size: 10000000
    bloom_filter_hash_funcs: 4
  context_lifecycle:
    hot_duration: 30m
    warm_duration: 24h
    hot_importance_threshold: 0.8
    warm_importance_threshold: 0.5
    compression_type: zstd
    compression_level: 6
  security:
    enable_signature_verification: true
    signature_header: X-Webhook-Signature
    timestamp_tolerance: 5m
    enable_rate_limiting: true
    global_rate_limit: 10000
    per_tool_rate_limits: {github: 5000, jira: 2000}
    max_payload_size: 10485760
    enable_audit_logging: true
  ai:
    embedding:
      provider: ${AI_EMBEDDING_PROVIDER}
      model: ${AI_EMBEDDING_MODEL}
      dimensions: 1536
      batch_size: 100
      cache_duration: 24h
    summarization:
      model: ${AI_SUMMARIZATION_MODEL}
      max_chunk_size: 4000
      cache_duration: 168h
    prewarming:
      max_predictions: 10
      confidence_threshold: 0.7
      lookback_window: 15m
observability:
  metrics:
    enabled: true
    type: prometheus
    push_gateway: ${PROMETHEUS_PUSHGATEWAY}
    push_interval: 30s
  tracing:
    enabled: true
    endpoint: ${OTEL_EXPORTER_OTLP_ENDPOINT}
    sampling_rate: 0.1
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """The guide's config.yaml."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    return file


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_a_variable_of_the_guide_is_read(variable: str) -> None:
    assert variable in variables()


def test_the_guides_file_and_environment_are_good(configuration: Path) -> None:
    found = examine(ENVIRONMENT | OURS | NODES, file=configuration)
    assert found.problems == []


def test_each_key_of_the_guide_is_known_and_says_what_it_does(configuration: Path) -> None:
    found = examine(ENVIRONMENT | OURS | NODES, file=configuration)
    known = {key.key: key for key in found.keys}
    for path in _leaves(yaml.safe_load(CONFIGURATION)):
        # A table by tool is one key.
        name = next((name for name in known if path == name or path.startswith(f"{name}.")), None)
        assert name is not None, path
        assert known[name].description


def test_a_slip_in_the_file_is_named_with_the_nearest_key(configuration: Path) -> None:
    slipped = CONFIGURATION.replace("batch_size: 100\n    block", "batch_sise: 100\n    block")
    configuration.write_text(slipped.replace("hot_duration: 30m", "hot_duration: often"), encoding="utf-8")
    problems = examine(ENVIRONMENT | OURS | NODES, file=configuration).problems
    assert any("batch_sise" in problem and "batch_size" in problem for problem in problems)
    assert any("hot_duration" in problem for problem in problems)


def test_what_is_not_done_yet_is_said(configuration: Path) -> None:
    said = "\n".join(examine(ENVIRONMENT | OURS | NODES, file=configuration).not_yet)
    for key in ("min_idle_conns", "push_gateway"):
        assert key in said


def test_no_secret_is_shown(configuration: Path) -> None:
    found = examine(ENVIRONMENT | OURS | NODES, file=configuration)
    shown = str([key.value for key in found.keys]) + str(found.not_yet + found.strangers)
    for variable in ("REDIS_PASSWORD", "ENCRYPTION_MASTER_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        assert ENVIRONMENT[variable] not in shown


def _leaves(tree: object, path: tuple[str, ...] = ()) -> list[str]:
    if not isinstance(tree, dict):
        return [".".join(path)]
    return [leaf for name, value in tree.items() for leaf in _leaves(value, (*path, str(name)))]
