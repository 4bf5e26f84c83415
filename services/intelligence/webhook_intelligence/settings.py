"""The settings of intelligence: `webhook.ai` of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from webhook_shared.settings import (
    Duration,
    Secret,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)

LOCAL_MODEL = "all-MiniLM-L6-v2"
LOCAL_DIMENSIONS = 384
EXTRACTIVE = "extractive"
DEFAULT_OPENAI_MODEL = "text-embedding-3-small"
DEFAULT_OPENAI_SUMMARIES = "gpt-4-turbo"
# What these models give where nobody asks for fewer.
OPENAI_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_NEEDS_KEY = "needs OPENAI_API_KEY; set it, or AI_EMBEDDING_PROVIDER=local for the model that needs none"


class EmbeddingSection(Section):
    """`webhook.ai.embedding`."""

    provider: Literal["auto", "local", "openai"] = setting(
        "auto",
        env="AI_EMBEDDING_PROVIDER",
        description="auto: openai where OPENAI_API_KEY is set, local elsewhere.",
    )
    model: str = setting(
        "",
        env="AI_EMBEDDING_MODEL",
        description=f"Empty: {DEFAULT_OPENAI_MODEL} with openai, {LOCAL_MODEL} with local.",
    )
    dimensions: int = setting(
        0, ge=0, le=4096, description="Length of a vector; 0: what the model gives by itself."
    )
    batch_size: int = setting(100, ge=1, le=2048, description="Most texts of one call to the provider.")
    cache_duration: Duration = setting(
        timedelta(hours=24), description="How long a vector is kept in Redis, from when it was made; 0s: not."
    )
    local_model_path: str = setting(
        "",
        env="AI_LOCAL_MODEL_PATH",
        description="Directory of other weights for local: a BERT sentence encoder in safetensors.",
    )
    local_threads: int = setting(
        0, ge=0, le=64, description="Threads of the local model; 0: one per processor, at most 4."
    )


class SummarizationSection(Section):
    """`webhook.ai.summarization`."""

    model: str = setting(
        "",
        env="AI_SUMMARIZATION_MODEL",
        description=f"A chat model, or {EXTRACTIVE} (local). Empty: as the embedding provider, "
        f"{DEFAULT_OPENAI_SUMMARIES} or {EXTRACTIVE}.",
    )
    max_chunk_size: int = setting(
        4000, ge=200, le=1_000_000, description="Most tokens of webhook text in one call to a chat model."
    )
    cache_duration: Duration = setting(
        timedelta(days=7),
        not_yet="summaries roll forward with their context and are not cached beside it",
        description="How long a summary is kept.",
    )


_PREWARMING = "contexts are not promoted ahead of their use"


class PrewarmingSection(Section):
    """`webhook.ai.prewarming`."""

    max_predictions: int = setting(
        10, ge=0, not_yet=_PREWARMING, description="Most contexts warmed for one event."
    )
    confidence_threshold: float = setting(
        0.7, ge=0, le=1, not_yet=_PREWARMING, description="Least confidence of a prediction that is acted on."
    )
    lookback_window: Duration = setting(
        timedelta(minutes=15), not_yet=_PREWARMING, description="How far back events belong together."
    )


class OpenAISection(Section):
    """`webhook.ai.openai`: any server that speaks the OpenAI API."""

    api_key: Secret = setting(
        SecretStr(""),
        env="OPENAI_API_KEY",
        description="Key of the provider; a server without keys takes any.",
    )
    base_url: str = setting(
        "", env="OPENAI_BASE_URL", description="https://host/v1 of another server; empty: OpenAI's own."
    )


class AISection(Section):
    """`webhook.ai`: models and who provides them."""

    embedding: EmbeddingSection = EmbeddingSection()
    summarization: SummarizationSection = SummarizationSection()
    prewarming: PrewarmingSection = PrewarmingSection()
    openai: OpenAISection = OpenAISection()

    @property
    def has_key(self) -> bool:
        """Whether the OpenAI-compatible provider can be used."""
        return bool(self.openai.api_key.get_secret_value())

    @property
    def embedding_provider(self) -> Literal["local", "openai"]:
        """Who makes vectors, after `auto`."""
        if self.embedding.provider == "auto":
            return "openai" if self.has_key else "local"
        return self.embedding.provider

    @property
    def embedding_model(self) -> str:
        """The model that makes them; empty where the local weights say."""
        if self.embedding_provider == "local" and self.embedding.local_model_path:
            return self.embedding.model
        return self.embedding.model or self._default_model

    @property
    def _default_model(self) -> str:
        return DEFAULT_OPENAI_MODEL if self.embedding_provider == "openai" else LOCAL_MODEL

    @property
    def embedding_dimensions(self) -> int:
        """How long they are; 0 where the local weights say."""
        if self.embedding.dimensions or self.embedding_provider == "local":
            return self.embedding.dimensions
        return OPENAI_DIMENSIONS.get(self.embedding_model, 0)

    @property
    def summarization_model(self) -> str:
        """Who makes summaries: `extractive` or the name of a chat model."""
        if self.summarization.model:
            return self.summarization.model
        return DEFAULT_OPENAI_SUMMARIES if self.embedding_provider == "openai" else EXTRACTIVE

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = [
            *(self._openai_problems() if self.embedding_provider == "openai" else self._local_problems()),
            *self._summarization_problems(),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _openai_problems(self) -> Iterator[str]:
        if not self.has_key:
            yield f"embedding.provider openai {_NEEDS_KEY}"
        most = OPENAI_DIMENSIONS.get(self.embedding_model, self.embedding_dimensions)
        if not self.embedding_dimensions:
            yield f"embedding.dimensions must be said for the model {self.embedding_model}"
        elif self.embedding_dimensions > most:
            yield f"embedding.dimensions: {self.embedding_model} gives at most {most}"

    def _local_problems(self) -> Iterator[str]:
        model_fits = self.embedding.model in {"", LOCAL_MODEL}
        dimensions_fit = self.embedding.dimensions in {0, LOCAL_DIMENSIONS}
        if not (model_fits and dimensions_fit) and not self.embedding.local_model_path:
            why = "" if self.embedding.provider == "local" else " (there is no OPENAI_API_KEY)"
            yield (
                f"the embedding provider is local{why}, which has the model {LOCAL_MODEL} with "
                f"{LOCAL_DIMENSIONS} dimensions: remove embedding.model and embedding.dimensions, "
                "or set AI_EMBEDDING_PROVIDER=openai and OPENAI_API_KEY"
            )

    def _summarization_problems(self) -> Iterator[str]:
        if self.summarization_model != EXTRACTIVE and not self.has_key and self.embedding_provider == "local":
            yield (
                f"summarization.model {self.summarization_model} needs OPENAI_API_KEY; set it, "
                f"or AI_SUMMARIZATION_MODEL={EXTRACTIVE} for summaries that need none"
            )


class IntelligenceWebhook(ServiceGroup):
    """The sections under `webhook:` that intelligence reads."""

    ai: AISection = AISection()


class IntelligenceSettings(ServiceSettings):
    """All that intelligence can be told."""

    webhook: IntelligenceWebhook = IntelligenceWebhook()
