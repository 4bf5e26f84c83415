"""What this service counts. No label ever holds text of a webhook, a tenant or a key."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EMBEDDING_S = Histogram(
    "webhook_ai_embedding_duration_seconds",
    "One batch at the embedding provider, retries included.",
    ["provider"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
SUMMARY_S = Histogram(
    "webhook_ai_summary_duration_seconds",
    "One summary, retries included.",
    ["provider"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60),
)
BATCH_TEXTS = Histogram(
    "webhook_ai_embedding_batch_texts",
    "Texts of one batch at the embedding provider.",
    ["provider"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
)
CACHE = Counter(
    "webhook_ai_embedding_cache_total",
    "Texts by where their vector came from: hit (cache), joined (under way or just made), awaited (a call "
    "of another replica), miss.",
    ["result"],
)
CACHE_FAILURES = Counter(
    "webhook_ai_embedding_cache_failures_total", "Cache calls that failed; they cost a provider call at most."
)
PROVIDER_CALLS = Counter(
    "webhook_ai_provider_calls_total",
    "Calls to a model provider, each attempt; outcome: ok, limited, refused, unreachable, malformed.",
    ["provider", "operation", "outcome"],
)
BREAKER_OPEN = Gauge(
    "webhook_ai_breaker_open",
    "1 while a provider's model is left alone because it was away, as this replica saw it last.",
    ["provider", "model"],
)
TOKENS = Counter(
    "webhook_ai_tokens_total",
    "Tokens sent to and made by a provider, as it bills them where it says so, estimated otherwise.",
    ["provider", "operation"],
)
SUMMARY_FALLBACKS = Counter(
    "webhook_ai_summary_fallbacks_total",
    "Summaries made locally because the provider's answer could not be used.",
)
SPENT_USD = Counter(
    "webhook_ai_spent_usd_total", "US dollars spent at providers, by list price.", ["model", "purpose"]
)
BUDGET_REFUSALS = Counter(
    "webhook_ai_budget_refusals_total", "Items that a tenant's budget did not hold.", ["purpose"]
)
PREWARM_OBSERVATIONS = Counter(
    "webhook_ai_prewarm_observations_total",
    "Uses of contexts that this replica has reported: learned, or dropped because Redis was away.",
    ["result"],
)
PREWARM_USES = Counter(
    "webhook_ai_prewarm_uses_total",
    "Uses in the trial of prediction: hit (hot anyway), saved (hot thanks to a prediction), missed, polluted "
    "(hot but for a prediction). In shadow mode: what would be so.",
    ["effect"],
)
PREWARM_PREDICTIONS = Counter(
    "webhook_ai_prewarm_predictions_total",
    "Predictions by rule, on or off: used within the lookback window, or unused.",
    ["rule", "outcome"],
)
PREWARM_RULES_ON = Gauge(
    "webhook_ai_prewarm_rules_on",
    "Tenants for which a rule pays, of those that this replica holds.",
    ["rule"],
)
