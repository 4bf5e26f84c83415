"""The settings of intelligence: `webhook.ai` of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from webhook_shared.settings import (
    AddressList,
    Duration,
    Secret,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)

from webhook_intelligence.costs.budgets import Budget, Budgets
from webhook_intelligence.costs.prices import Price, Prices

LOCAL_MODEL = "all-MiniLM-L6-v2"
STATIC_MODEL = "all-MiniLM-L6-v2-static"
LOCAL_DIMENSIONS = 384
EXTRACTIVE = "extractive"
LINK_HOSTS = ("github.com", "gitlab.com", "bitbucket.org", "atlassian.net")
DEFAULT_OPENAI_MODEL = "text-embedding-3-small"
DEFAULT_OPENAI_SUMMARIES = "gpt-4-turbo"
# What these models give where nobody asks for fewer.
OPENAI_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_NEEDS_KEY = "needs OPENAI_API_KEY; set it, or AI_EMBEDDING_PROVIDER=local for the model that needs none"


class NextEmbeddingSection(Section):
    """`webhook.ai.embedding.next`: the model that is to come, whose index is filled beside the one in use."""

    provider: Literal["auto", "local", "openai"] = setting("auto", description="As of the one in use.")
    model: str = setting(
        "",
        env="AI_EMBEDDING_NEXT_MODEL",
        description="Empty: none; `webhook-cli intelligence reindex` brings it in.",
    )
    dimensions: int = setting(0, ge=0, le=4096, description="As of the one in use.")
    local_model_path: str = setting("", description="As of the one in use.")


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
        description=f"Empty: {DEFAULT_OPENAI_MODEL} with openai, {LOCAL_MODEL} with local, which also has "
        f"{STATIC_MODEL} (a hundred times as fast, finds less).",
    )
    dimensions: int = setting(
        0, ge=0, le=4096, description="Length of a vector; 0: what the model gives by itself."
    )
    batch_size: int = setting(100, ge=1, le=2048, description="Most texts of one call to the provider.")
    cache_duration: Duration = setting(
        timedelta(hours=24), description="How long a vector is kept in Redis, from when it was made; 0s: not."
    )
    cache_scope: Literal["tenant", "shared"] = setting(
        "tenant",
        description="shared: tenants share vectors; how fast an answer comes then tells what others asked.",
    )
    linger: Duration = setting(
        timedelta(milliseconds=10),
        description="How long a text waits for others to share its call to a remote provider; 0s: not.",
    )
    local_model_path: str = setting(
        "",
        env="AI_LOCAL_MODEL_PATH",
        description="Directory of other weights for local: a BERT sentence encoder in safetensors.",
    )
    static_directory: str = setting(
        "var/models",
        env="AI_STATIC_DIRECTORY",
        description=f"Where {STATIC_MODEL} is kept once it is made, half a minute at the first start.",
    )
    local_threads: int = setting(
        0, ge=0, le=64, description="Threads of the local model; 0: one per processor, at most 4."
    )
    next: NextEmbeddingSection = NextEmbeddingSection()


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
        description="How long a chat model's answer is kept in Redis, from when it was made; 0s: not.",
    )
    link_hosts: AddressList = setting(
        LINK_HOSTS, description="Hosts that links in a summary may lead to; other links are taken out."
    )


class PrewarmingSection(Section):
    """`webhook.ai.prewarming`: which contexts will be needed next."""

    mode: Literal["off", "shadow", "active"] = setting(
        "shadow",
        env="AI_PREWARMING_MODE",
        description="off: nothing is learned; shadow: predictions are only measured; active: to be acted on.",
    )
    max_predictions: int = setting(
        10, ge=0, le=100, description="Most contexts predicted for one use of a context."
    )
    confidence_threshold: float = setting(
        0.3, ge=0, le=1, description="Least confidence of a prediction; from about 0.7 there are hardly any."
    )
    lookback_window: Duration = setting(
        timedelta(minutes=15),
        description="How far apart uses belong together, and how long a prediction waits for its use.",
    )
    break_even: float = setting(
        0.15, ge=0, le=1, description="Share of predictions that must come true; below it a rule goes off."
    )
    hot_contexts: int = setting(
        1024,
        ge=8,
        le=65_536,
        description="Contexts of a tenant in the hot tier on which predictions are tried.",
    )
    hot_duration: Duration = setting(
        timedelta(minutes=30),
        description="How long a context stays in it after its last use; 0s: while it fits.",
    )


class TenantBudget(Section):
    """What one tenant may spend at providers; days and months are those of UTC."""

    daily_usd: float = setting(0.0, ge=0, description="US dollars per day; 0: no limit.")
    monthly_usd: float = setting(0.0, ge=0, description="US dollars per calendar month; 0: no limit.")
    daily_tokens: int = setting(0, ge=0, description="Tokens per day, local models included; 0: no limit.")

    @property
    def budget(self) -> Budget:
        """The same, to reckon with."""
        return Budget(self.daily_usd, self.monthly_usd, self.daily_tokens)


class BudgetSection(Section):
    """`webhook.ai.budget`: for each tenant, checked before a provider is called."""

    daily_usd: float = setting(
        0.0, ge=0, env="AI_BUDGET_DAILY_USD", description="US dollars per tenant and day; 0: no limit."
    )
    monthly_usd: float = setting(
        0.0, ge=0, env="AI_BUDGET_MONTHLY_USD", description="US dollars per tenant and month; 0: no limit."
    )
    daily_tokens: int = setting(
        0, ge=0, description="Tokens per tenant and day, local models included; 0: no limit."
    )
    tenants: dict[str, TenantBudget] = setting(
        {}, description="Tenant to a budget of its own, in place of these."
    )

    @property
    def budgets(self) -> Budgets:
        """The same, to reckon with."""
        return Budgets(
            Budget(self.daily_usd, self.monthly_usd, self.daily_tokens),
            {tenant: own.budget for tenant, own in self.tenants.items()},
        )


class ModelPrice(Section):
    """What a model costs."""

    input_usd: float = setting(0.0, ge=0, description="US dollars per million tokens sent.")
    output_usd: float = setting(0.0, ge=0, description="US dollars per million tokens made.")


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
    budget: BudgetSection = BudgetSection()
    prices: dict[str, ModelPrice] = setting(
        {}, description="Model to its price per million tokens, over the list prices that are known."
    )

    def price_list(self, embedding_model: str) -> Prices:
        """What models cost, given the one that makes vectors; what runs here costs nothing."""
        free = {EXTRACTIVE, *([embedding_model] if self.embedding_provider == "local" else [])}
        own = {model: Price(price.input_usd, price.output_usd) for model, price in self.prices.items()}
        return Prices(own, free=frozenset(free))

    @property
    def following(self) -> Self | None:
        """The same with the next embedding model; None where none is set.

        Raises:
            ValueError: It can't be used as it is set.
        """
        coming = self.embedding.next
        if not coming.model and not coming.local_model_path:
            return None
        embedding = self.embedding.model_dump() | coming.model_dump() | {"next": NextEmbeddingSection()}
        return type(self)(
            embedding=EmbeddingSection(**embedding),
            openai=self.openai,
            summarization=SummarizationSection(model=EXTRACTIVE),
        )

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
        if (following := self.following) is not None and (
            following.embedding_provider,
            following.embedding_model,
            following.embedding_dimensions,
        ) == (self.embedding_provider, self.embedding_model, self.embedding_dimensions):
            raise ValueError("embedding.next is the model that is in use: remove it, or name another")
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
        model_fits = self.embedding.model in {"", LOCAL_MODEL, STATIC_MODEL}
        dimensions_fit = self.embedding.dimensions in {0, LOCAL_DIMENSIONS}
        if not (model_fits and dimensions_fit) and not self.embedding.local_model_path:
            why = "" if self.embedding.provider == "local" else " (there is no OPENAI_API_KEY)"
            yield (
                f"the embedding provider is local{why}, which has the models {LOCAL_MODEL} and "
                f"{STATIC_MODEL} with {LOCAL_DIMENSIONS} dimensions: remove embedding.model "
                "and embedding.dimensions, or set AI_EMBEDDING_PROVIDER=openai and OPENAI_API_KEY"
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
