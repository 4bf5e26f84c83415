"""Puts the service together; the only place that opens resources and names adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from webhook.intelligence.v1 import intelligence_service_pb2_grpc as rpc
from webhook_shared.redis import Client, connect
from webhook_shared.rpc.identity import Authenticator, Certificates, Role
from webhook_shared.rpc.server import Service, serving

from webhook_intelligence.analysis import Analyst
from webhook_intelligence.costs.ledger import Ledger
from webhook_intelligence.embeddings.cache import EmbeddingCache
from webhook_intelligence.embeddings.leases import Leases
from webhook_intelligence.embeddings.models_in_use import ModelsInUse
from webhook_intelligence.embeddings.single_flight import Embeddings
from webhook_intelligence.forgetting import Forgetting
from webhook_intelligence.prediction.predictor import Policy
from webhook_intelligence.prediction.prewarming import READ_BLOCK_S, Prewarming
from webhook_intelligence.prediction.trial import Size
from webhook_intelligence.providers.breaker import Breaker
from webhook_intelligence.providers.checkpoint import WeightsError
from webhook_intelligence.providers.protocol import EmbeddingModel, EmbeddingProvider
from webhook_intelligence.servicer import IntelligenceServicer
from webhook_intelligence.settings import (
    EXTRACTIVE,
    STATIC_MODEL,
    AISection,
    IntelligenceSettings,
    IntelligenceWebhook,
    PrewarmingSection,
)
from webhook_intelligence.summaries.cache import SummaryCache
from webhook_intelligence.summaries.extractive import ExtractiveSummarizer, Summarizer

if TYPE_CHECKING:
    from webhook_intelligence.providers.local import LocalEmbeddings
    from webhook_intelligence.providers.openai_calls import OpenAICalls
    from webhook_intelligence.providers.static import StaticEmbeddings

log = structlog.get_logger()


@dataclass(frozen=True)
class Running:
    """The service, up.

    Attributes:
        port: Of its gRPC server.
        model: Whose vectors it makes.
    """

    port: int
    model: EmbeddingModel


@asynccontextmanager
async def running(settings: IntelligenceSettings) -> AsyncIterator[Running]:
    """Serve while inside.

    Raises:
        WeightsError: The local model is wanted and can't be loaded.
        RuntimeError: The port is taken.
        ValueError: The settings contradict each other.
    """
    webhook = settings.webhook
    async with AsyncExitStack() as stack:
        redis = connect(webhook.redis)
        stack.push_async_callback(redis.aclose)
        provider = await _embedding_provider(webhook.ai, redis, stack)
        ledger = await stack.enter_async_context(
            Ledger(redis, webhook.ai.price_list(provider.model.name), webhook.ai.budget.budgets)
        )
        summarizer = await _summarizer(webhook.ai, redis, ledger, stack)
        embeddings = await stack.enter_async_context(_embeddings(webhook.ai, provider, redis, ledger))
        following = await _following(webhook.ai, redis, ledger, stack)
        prewarming = await _prewarming(webhook, redis, stack)
        servicer = IntelligenceServicer(
            ModelsInUse(redis, embeddings, following),
            embeddings,
            summarizer=summarizer,
            analyst=Analyst(embeddings, summarizer),
            ledger=ledger,
            prewarming=prewarming,
            acts=webhook.ai.prewarming.mode == "active",
            forgetting=Forgetting(redis, shared=webhook.ai.embedding.cache_scope == "shared"),
        )
        service = Service(
            name="webhook.intelligence.v1.IntelligenceService",
            add=partial(rpc.add_IntelligenceServiceServicer_to_server, servicer),
            role=Role.READER,
            roles={
                "Analyze": Role.WRITER,
                "StreamAnalyze": Role.WRITER,
                "Observe": Role.WRITER,
                "SwitchEmbeddingModel": Role.OPERATOR,
                "Forget": Role.INTERNAL,
            },
        )
        log.info(
            "models.ready",
            provider=provider.model.provider,
            model=provider.model.name,
            dimension=provider.model.dimension,
            summaries=webhook.ai.summarization_model,
        )
        port = await stack.enter_async_context(
            serving(
                settings.process.listen_address or webhook.services.intelligence,
                [service],
                authenticator=Authenticator(
                    redis, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
                ),
                # The model is loaded before anybody is listened to. Redis is but a cache here, and a
                # provider that is away fails item by item: neither makes this service useless.
                ready={},
                drain_s=settings.process.drain_timeout.total_seconds(),
                tls=webhook.tls,
            )
        )
        yield Running(port, provider.model)


async def _following(
    ai: AISection, redis: Client, ledger: Ledger, stack: AsyncExitStack
) -> Embeddings | None:
    """The next model. Where it can't be had, the one that serves goes on alone."""
    following = ai.following
    if following is None:
        return None
    try:
        provider = await _embedding_provider(following, redis, stack)
    except WeightsError as error:
        log.error("models.next_missing", reason=str(error))
        return None
    return await stack.enter_async_context(_embeddings(following, provider, redis, ledger))


def _embeddings(ai: AISection, provider: EmbeddingProvider, redis: Client, ledger: Ledger) -> Embeddings:
    section = ai.embedding
    cache = EmbeddingCache(
        redis, provider.model, section.cache_duration, shared=section.cache_scope == "shared"
    )
    return Embeddings(
        provider,
        cache,
        ledger,
        batch_texts=section.batch_size,
        linger_s=section.linger.total_seconds(),
        leases=Leases(redis),
    )


async def _openai_calls(ai: AISection, model: str, redis: Client, stack: AsyncExitStack) -> OpenAICalls:
    from webhook_intelligence.providers.openai_calls import PROVIDER, OpenAICalls  # noqa: PLC0415  # as below

    breaker = Breaker(redis, PROVIDER, model)
    return await stack.enter_async_context(OpenAICalls(ai.openai.api_key, ai.openai.base_url, breaker))


async def _embedding_provider(ai: AISection, redis: Client, stack: AsyncExitStack) -> EmbeddingProvider:
    # Each provider is imported only where it is used: the SDK costs 40 MB, the local runtime 20 MB.
    if ai.embedding_provider == "openai":
        from webhook_intelligence.providers.openai import OpenAIEmbeddings  # noqa: PLC0415  # see above

        calls = await _openai_calls(ai, ai.embedding_model, redis, stack)
        return OpenAIEmbeddings(calls, ai.embedding_model, ai.embedding_dimensions)
    local = await asyncio.to_thread(_local_model, ai)
    stack.callback(local.close)
    return local


def _local_model(ai: AISection) -> LocalEmbeddings | StaticEmbeddings:
    if ai.embedding_model == STATIC_MODEL:
        from webhook_intelligence.providers.static import StaticEmbeddings  # noqa: PLC0415  # see above

        return StaticEmbeddings.load(
            name=STATIC_MODEL,
            directory=ai.embedding.static_directory,
            path=ai.embedding.local_model_path,
            threads=ai.embedding.local_threads,
        )
    from webhook_intelligence.providers.local import LocalEmbeddings  # noqa: PLC0415  # see above

    return LocalEmbeddings.load(
        path=ai.embedding.local_model_path,
        name=ai.embedding_model,
        dimensions=ai.embedding_dimensions,
        threads=ai.embedding.local_threads,
    )


async def _prewarming(
    webhook: IntelligenceWebhook, redis: Client, stack: AsyncExitStack
) -> Prewarming | None:
    section = webhook.ai.prewarming
    if section.mode == "off":
        return None
    reader = connect(webhook.redis, block_s=READ_BLOCK_S)
    stack.push_async_callback(reader.aclose)
    return await stack.enter_async_context(Prewarming(redis, reader, _policy(section)))


def _policy(section: PrewarmingSection) -> Policy:
    return Policy(
        max_predictions=section.max_predictions,
        confidence_threshold=section.confidence_threshold,
        lookback_s=section.lookback_window.total_seconds(),
        break_even=section.break_even,
        tier=Size(section.hot_contexts, section.hot_duration.total_seconds()),
    )


async def _summarizer(ai: AISection, redis: Client, ledger: Ledger, stack: AsyncExitStack) -> Summarizer:
    if ai.summarization_model == EXTRACTIVE:
        return ExtractiveSummarizer(ai.summarization.link_hosts)
    from webhook_intelligence.summaries.chat import Chat  # noqa: PLC0415  # as above
    from webhook_intelligence.summaries.openai import OpenAISummarizer  # noqa: PLC0415  # as above

    calls = await _openai_calls(ai, ai.summarization_model, redis, stack)
    cache = SummaryCache(redis, ai.summarization.cache_duration)
    chat = Chat(calls, ai.summarization_model, ledger, cache, is_openai=not ai.openai.base_url)
    return OpenAISummarizer(
        chat, ledger, chunk_tokens=ai.summarization.max_chunk_size, hosts=ai.summarization.link_hosts
    )
