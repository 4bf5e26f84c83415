"""What the RPCs carry, as the rest of the service has it, and back."""

from __future__ import annotations

from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.errors import InvalidArgument, ServiceError, item_status

from webhook_intelligence.analysis import Analysis
from webhook_intelligence.costs.budgets import Budget, Spent
from webhook_intelligence.costs.ledger import Entry
from webhook_intelligence.costs.prices import NANO
from webhook_intelligence.embeddings.batches import Lane
from webhook_intelligence.embeddings.single_flight import Outcome
from webhook_intelligence.importance import DESCRIPTIONS, FROM_TEXT, TEXT_SHARE, WEIGHTS, Feature
from webhook_intelligence.prediction.observations import (
    ACTOR_CHARS,
    CONTEXT_ID_CHARS,
    MOST_LINKS,
    Observation,
    ObservationKind,
)
from webhook_intelligence.prediction.predictor import Prediction, Predictor
from webhook_intelligence.providers.protocol import EmbeddingModel
from webhook_intelligence.summaries.coverage import Coverage
from webhook_intelligence.summaries.extractive import Style, Summary
from webhook_intelligence.texts.subject import Happening, Subject

_KINDS = {
    pb.OBSERVATION_KIND_EVENT: ObservationKind.EVENT,
    pb.OBSERVATION_KIND_ACCESS: ObservationKind.ACCESS,
    pb.OBSERVATION_KIND_GONE: ObservationKind.GONE,
}

_LANES = {
    pb.PRIORITY_QUERY: Lane.QUERY,
    pb.PRIORITY_EVENT: Lane.EVENT,
    pb.PRIORITY_BACKFILL: Lane.BACKFILL,
}
_STYLES = {
    pb.SUMMARY_STYLE_UNSPECIFIED: Style.PROSE,
    pb.SUMMARY_STYLE_PROSE: Style.PROSE,
    pb.SUMMARY_STYLE_BULLETS: Style.BULLETS,
    pb.SUMMARY_STYLE_HEADLINE: Style.HEADLINE,
}


def subject(message: pb.Subject) -> Subject:
    """A context to be read."""
    return Subject(
        context_id=message.context_id,
        title=message.title,
        summary=message.summary,
        happenings=tuple(
            Happening(happening.event_id, happening.kind, happening.action, happening.actor, happening.text)
            for happening in message.happenings
        ),
        event_count=message.event_count,
    )


def model(found: EmbeddingModel) -> pb.EmbeddingModel:
    """Whose vectors they are."""
    return pb.EmbeddingModel(
        provider=found.provider, name=found.name, dimension=found.dimension, revision=found.revision
    )


def lane(priority: pb.Priority.ValueType, default: Lane) -> Lane:
    """How urgent a call is.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    if priority == pb.PRIORITY_UNSPECIFIED:
        return default
    if priority not in _LANES:
        raise InvalidArgument("there is no such priority", fields={"priority": "must be one of Priority"})
    return _LANES[priority]


def style(message: pb.SummaryStyle.ValueType) -> Style:
    """The form of a summary.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    if message not in _STYLES:
        raise InvalidArgument("there is no such style", fields={"style": "must be one of SummaryStyle"})
    return _STYLES[message]


def status(error: ServiceError | None) -> ItemStatus:
    """How one item went."""
    return ItemStatus(**item_status(error))


def embed_result(outcome: Outcome) -> pb.EmbedResult:
    """One text of `Embed`."""
    if isinstance(outcome, ServiceError):
        return pb.EmbedResult(status=status(outcome))
    return pb.EmbedResult(
        vector=outcome.vector.tolist(),
        truncated=outcome.truncated,
        piece_count=outcome.pieces,
        status=status(None),
    )


def summary(found: Summary) -> pb.SummarizeResponse:
    """The answer of `Summarize`."""
    return pb.SummarizeResponse(
        summary=found.text,
        model=found.model,
        sentences=[
            pb.SummarySentence(text=sentence.text, text_indexes=sentence.sources)
            for sentence in found.sentences
        ],
        coverage=_coverage(found.coverage),
        cached=found.is_cached,
    )


def _coverage(found: Coverage) -> pb.SummaryCoverage:
    return pb.SummaryCoverage(fact_count=found.facts, kept_count=found.kept, appended=found.appended)


def analysis(outcome: Analysis | ServiceError) -> pb.Analysis:
    """One subject of `Analyze`."""
    if isinstance(outcome, ServiceError):
        return pb.Analysis(status=status(outcome))
    return pb.Analysis(
        vector=outcome.vector.tolist(),
        summary=outcome.summary.text,
        summary_model=outcome.summary.model,
        importance=outcome.importance.value,
        importance_factors=[
            pb.ImportanceFactor(name=factor.name, contribution=factor.contribution)
            for factor in outcome.importance.factors
        ],
        entities=[pb.Entity(kind=entity.kind, value=entity.value) for entity in outcome.entities],
        status=status(None),
        summary_sentences=[
            pb.SummarySentence(
                text=sentence.text, event_ids=[outcome.event_ids[at] for at in sentence.sources]
            )
            for sentence in outcome.summary.sentences
        ],
        summary_coverage=_coverage(outcome.summary.coverage),
        deferred_count=outcome.summary.deferred,
        model=model(outcome.model),
    )


def explanation(found: list[Feature]) -> pb.ExplainResponse:
    """Features of a subject; without any, the features as such."""
    shown = found or [Feature(name, 0.0, ()) for name in WEIGHTS]
    shown = sorted(shown, key=lambda feature: (-feature.contribution, -WEIGHTS[feature.name], feature.name))
    return pb.ExplainResponse(
        importance=min(1.0, round(sum(feature.contribution for feature in shown), 4)),
        features=[
            pb.Feature(
                name=feature.name,
                description=DESCRIPTIONS[feature.name],
                value=feature.value,
                weight=WEIGHTS[feature.name],
                contribution=feature.contribution,
                from_text=feature.name in FROM_TEXT,
                evidence=feature.evidence,
            )
            for feature in shown
        ],
        text_share=TEXT_SHARE,
    )


def observation(message: pb.Observation, now_s: float) -> Observation:
    """What was observed.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise InvalidArgument(
            "what was observed is not said", fields={"kind": "must be event, access or gone"}
        )
    for field, value, chars in (
        ("context_id", message.context_id, CONTEXT_ID_CHARS),
        *(("linked_context_ids", link, CONTEXT_ID_CHARS) for link in message.linked_context_ids),
    ):
        if not 1 <= len(value) <= chars:
            raise InvalidArgument(f"{field} is empty or too long", fields={field: f"1 to {chars} characters"})
    if len(message.actor) > ACTOR_CHARS:
        raise InvalidArgument("actor is too long", fields={"actor": f"at most {ACTOR_CHARS} characters"})
    if len(message.linked_context_ids) > MOST_LINKS:
        raise InvalidArgument(
            "too many links", fields={"linked_context_ids": f"at most {MOST_LINKS} are taken"}
        )
    at_s = message.time.ToNanoseconds() / 1e9 if message.HasField("time") else now_s
    return Observation(
        min(at_s, now_s), kind, message.context_id, message.actor, tuple(message.linked_context_ids)
    )


def observed(message: pb.Subject, now_s: float) -> Observation | None:
    """What an analysed subject says about the use of contexts; None where nothing has happened in it."""
    if not message.happenings or not 1 <= len(message.context_id) <= CONTEXT_ID_CHARS:
        return None
    links = [link for link in message.linked_context_ids if 1 <= len(link) <= CONTEXT_ID_CHARS]
    return Observation(
        now_s,
        ObservationKind.EVENT,
        message.context_id,
        message.happenings[-1].actor[:ACTOR_CHARS],
        tuple(links[:MOST_LINKS]),
    )


def predictions(found: list[Prediction], predictor: Predictor, *, acts: bool) -> pb.PredictResponse:
    """What is predicted, and how the rules do."""
    return pb.PredictResponse(
        predictions=[
            pb.Prediction(
                context_id=one.context_id,
                confidence=one.confidence,
                rule=one.rule,
                because_context_id=one.because,
                on=one.on,
            )
            for one in found
        ],
        rules=[
            pb.PredictionRule(
                name=name,
                on=verdict.on,
                precision=verdict.precision,
                settled_count=verdict.settled,
                saved_count=verdict.saved,
                polluted_count=verdict.polluted,
            )
            for name, verdict in predictor.verdicts.items()
        ],
        mode=pb.PREDICTION_MODE_ACTIVE if acts else pb.PREDICTION_MODE_SHADOW,
        observation_count=predictor.observation_count,
    )


def spending(entries: list[Entry], budget: Budget, spent: Spent) -> pb.GetSpendingResponse:
    """The books of a tenant."""
    return pb.GetSpendingResponse(
        spendings=[
            pb.Spending(
                day=entry.day.isoformat(),
                model=entry.model,
                purpose=entry.purpose,
                input_tokens=entry.usage.input_tokens,
                output_tokens=entry.usage.output_tokens,
                usd=entry.nano_usd / NANO,
            )
            for entry in entries
        ],
        budget=pb.Budget(
            daily_usd=budget.daily_usd,
            monthly_usd=budget.monthly_usd,
            daily_tokens=budget.daily_tokens,
            spent_today_usd=spent.day / NANO,
            spent_this_month_usd=spent.month / NANO,
            spent_today_tokens=spent.tokens,
        ),
    )
