"""What the queue's nouns look like in the contract."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages

from webhook_consumer.admin.tools import Pause, ToolBacklog
from webhook_consumer.dead_letters.letters import DeadLetter, LetterCount, LetterFilter
from webhook_consumer.dead_letters.redrive import Progress
from webhook_consumer.failures.breaker import Breaker, State
from webhook_consumer.queue.redis import Counts, Lane

_STATES = {
    State.CLOSED: messages.CIRCUIT_BREAKER_STATE_CLOSED,
    State.OPEN: messages.CIRCUIT_BREAKER_STATE_OPEN,
    State.HALF_OPEN: messages.CIRCUIT_BREAKER_STATE_HALF_OPEN,
}


def stage(lane: Lane, counts: Counts, *, estimated: bool = False) -> messages.StageBacklog:
    """Where the events of a stage are."""
    return messages.StageBacklog(
        estimated=estimated,
        stage=lane.stage,
        stream=lane.stream,
        group=lane.group,
        waiting_count=counts.waiting,
        in_flight_count=counts.in_flight,
        delayed_count=counts.delayed,
        parked_count=counts.parked,
        dead_count=counts.dead,
        oldest_age=duration(counts.oldest_ms) if counts.oldest_ms is not None else None,
    )


def estimate(lane: Lane, counts: Counts | None) -> messages.StageBacklog:
    """Where the events of a queue are that can't count them; None of one that does not answer."""
    if counts is None:
        return messages.StageBacklog(stage=lane.stage, stream=lane.stream, group=lane.group, unreachable=True)
    return stage(lane, counts, estimated=True)


def letter(name: str, found: DeadLetter) -> messages.DeadLetter:
    """A dead letter, by the id that callers know it by."""
    entry = found.entry
    redrives = entry.text(b"redrives")
    return messages.DeadLetter(
        dead_letter_id=name,
        event_id=entry.text(b"id"),
        tenant=entry.text(b"tenant"),
        tool=entry.tool,
        type=entry.text(b"type"),
        stage=found.lane.stage,
        received_time=timestamp(entry.fields.get(b"received", b"")),
        dead_time=timestamp(entry.id.partition(b"-")[0]),
        attempts=entry.failures,
        cause=entry.text(b"cause"),
        detail=entry.text(b"detail"),
        traceparent=entry.text(b"traceparent"),
        fingerprint=entry.text(b"fingerprint"),
        redriven_from=entry.text(b"redriven_from"),
        redrive_count=int(redrives) if redrives.isdigit() and len(redrives) < 10 else 0,
    )


def letter_count(count: LetterCount) -> messages.DeadLetterCount:
    """How many died of the same thing."""
    return messages.DeadLetterCount(
        fingerprint=count.fingerprint,
        stage=count.stage,
        tool=count.tool,
        cause=count.cause,
        detail=count.detail,
        count=count.count,
        newest_dead_time=_moment(count.newest_ms),
        oldest_dead_time=_moment(count.oldest_ms),
    )


def letter_filter(asked: messages.DeadLetterFilter) -> LetterFilter:
    """Which dead letters a request is about."""
    return LetterFilter(
        stage=asked.stage,
        tool=asked.tool,
        tenant=asked.tenant,
        cause=asked.cause,
        fingerprint=asked.fingerprint,
    )


def progress(told: Progress, samples: list[messages.DeadLetter]) -> messages.RedriveDeadLettersResponse:
    """How far a redrive is."""
    return messages.RedriveDeadLettersResponse(
        phase=messages.RedriveDeadLettersResponse.Phase.ValueType(told.phase),
        redriven_count=told.redriven,
        succeeded_count=told.succeeded,
        died_count=told.died,
        result=messages.RedriveDeadLettersResponse.Result.ValueType(told.result or 0),
        samples=samples,
    )


def pause(found: Pause) -> messages.ToolPause:
    """A paused tool."""
    return messages.ToolPause(tool=found.tool, pause_time=_moment(found.since_ms), note=found.note)


def breaker(found: Breaker) -> messages.CircuitBreaker:
    """A breaker."""
    return messages.CircuitBreaker(
        stage=found.stage,
        tool=found.tool,
        state=_STATES[found.state],
        change_time=_moment(found.since_ms),
        probe_time=_moment(found.until_ms),
        trip_count=found.trips,
        succeeded_count=found.ok,
        failed_count=found.bad,
    )


def tool(found: ToolBacklog, paused: Pause | None, state: State) -> messages.ToolBacklog:
    """Where a tool's events are in a stage."""
    return messages.ToolBacklog(
        stage=found.stage,
        tool=found.tool,
        waiting_count=found.waiting,
        in_flight_count=found.in_flight,
        delayed_count=found.delayed,
        parked_count=found.parked,
        dead_count=found.dead,
        oldest_age=duration(found.oldest_ms) if found.oldest_ms is not None else None,
        estimated=found.estimated,
        pause=pause(paused) if paused else None,
        breaker_state=_STATES[state],
    )


def duration(milliseconds: int) -> Duration:
    """Milliseconds as the contract has them."""
    made = Duration()
    made.FromMilliseconds(milliseconds)
    return made


def timestamp(milliseconds: bytes) -> Timestamp | None:
    """Unix ms as they stand in an entry; None where that is no time."""
    # More digits than that are no time of ours, and more than a Timestamp holds.
    if not milliseconds.isdigit() or len(milliseconds) > 14:
        return None
    return _moment(int(milliseconds))


def _moment(milliseconds: float | None) -> Timestamp | None:
    if milliseconds is None:
        return None
    made = Timestamp()
    made.FromMilliseconds(int(milliseconds))
    return made
