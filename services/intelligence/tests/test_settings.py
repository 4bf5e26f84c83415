"""Who provides what, and what is said where that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest
from webhook_intelligence.prediction.predictor import Policy
from webhook_intelligence.settings import AISection, IntelligenceSettings, PrewarmingSection
from webhook_intelligence.wiring import _policy
from webhook_shared.settings import SettingsError, unfinished

KEY = {"OPENAI_API_KEY": "sk-test"}
GUIDE = """
webhook:
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
      cache_duration: 168h  # 7 days
    prewarming:
      max_predictions: 10
      confidence_threshold: 0.7
      lookback_window: 15m
"""
GUIDE_ENVIRONMENT = {
    "AI_EMBEDDING_PROVIDER": "openai",
    "AI_EMBEDDING_MODEL": "text-embedding-3-small",
    "AI_SUMMARIZATION_MODEL": "gpt-4-turbo",
}


def load(environ: dict[str, str], file: Path | None = None) -> AISection:
    return IntelligenceSettings.load(file=file, environ=environ).webhook.ai


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(GUIDE)
    return file


def test_no_key_means_local() -> None:
    ai = load({})
    assert (ai.embedding_provider, ai.embedding_model) == ("local", "all-MiniLM-L6-v2")
    assert ai.summarization_model == "extractive"


def test_a_key_means_openai() -> None:
    ai = load(KEY)
    assert ai.embedding_provider == "openai"
    assert (ai.embedding_model, ai.embedding_dimensions) == ("text-embedding-3-small", 1536)
    assert ai.summarization_model == "gpt-4-turbo"


def test_local_can_be_asked_for_in_spite_of_a_key() -> None:
    ai = load({**KEY, "AI_EMBEDDING_PROVIDER": "local"})
    assert (ai.embedding_provider, ai.summarization_model) == ("local", "extractive")


def test_summaries_may_come_from_elsewhere_than_vectors() -> None:
    ai = load({**KEY, "AI_EMBEDDING_PROVIDER": "local", "AI_SUMMARIZATION_MODEL": "gpt-4-turbo"})
    assert (ai.embedding_provider, ai.summarization_model) == ("local", "gpt-4-turbo")


def test_the_file_of_the_guide(guide: Path) -> None:
    settings = IntelligenceSettings.load(file=guide, environ={**GUIDE_ENVIRONMENT, **KEY})
    ai = settings.webhook.ai
    assert (ai.embedding_provider, ai.embedding_dimensions) == ("openai", 1536)
    assert ai.embedding.cache_duration.total_seconds() == 86_400
    said = unfinished(settings)
    assert said == []
    assert (ai.prewarming.confidence_threshold, ai.prewarming.mode) == (0.7, "shadow")


def test_openai_without_a_key_is_one_clear_mistake() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"AI_EMBEDDING_PROVIDER": "openai"})
    assert len(caught.value.problems) == 1
    assert "needs OPENAI_API_KEY" in caught.value.problems[0]


def test_the_guides_file_with_the_local_provider_says_what_to_remove(guide: Path) -> None:
    environ = {**GUIDE_ENVIRONMENT, "AI_EMBEDDING_PROVIDER": "local", "AI_SUMMARIZATION_MODEL": "extractive"}
    with pytest.raises(SettingsError, match="which has the models all-MiniLM-L6-v2 and"):
        load(environ, guide)


def test_a_chat_model_without_a_key() -> None:
    with pytest.raises(SettingsError, match="AI_SUMMARIZATION_MODEL=extractive"):
        load({"AI_SUMMARIZATION_MODEL": "gpt-4-turbo"})


def test_more_dimensions_than_the_model_has(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("webhook: {ai: {embedding: {model: text-embedding-3-small, dimensions: 4000}}}")
    with pytest.raises(SettingsError, match="at most 1536"):
        load(KEY, file)


def test_a_model_that_nobody_knows_needs_its_dimensions() -> None:
    with pytest.raises(SettingsError, match="dimensions must be said for the model nomic-embed-text"):
        load({**KEY, "AI_EMBEDDING_MODEL": "nomic-embed-text"})


def test_what_the_evaluator_takes_for_granted_is_what_runs() -> None:
    assert _policy(PrewarmingSection()) == Policy()


def test_a_budget_of_a_tenant_stands_in_place_of_the_common_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("webhook: {ai: {budget: {daily_usd: 1, tenants: {acme: {monthly_usd: 300}}}}}")
    budgets = load({"AI_BUDGET_MONTHLY_USD": "20"}, file).budget.budgets
    assert (budgets.of("globex").daily_usd, budgets.of("globex").monthly_usd) == (1, 20)
    assert (budgets.of("acme").daily_usd, budgets.of("acme").monthly_usd) == (0, 300)
    file.write_text("webhook: {ai: {budget: {tenants: {acme: {dayly_usd: 1}}}}}")
    with pytest.raises(SettingsError, match="dayly_usd"):
        load({}, file)


def test_the_static_model_is_a_local_one() -> None:
    ai = load({"AI_EMBEDDING_MODEL": "all-MiniLM-L6-v2-static"})
    assert (ai.embedding_provider, ai.embedding_model) == ("local", "all-MiniLM-L6-v2-static")
    assert ai.price_list(ai.embedding_model).knows("all-MiniLM-L6-v2-static")
