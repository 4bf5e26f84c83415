"""The models of prediction, the same in every replica.

What is observed goes to one Redis stream; every replica reads it and applies it in the same order, so all
of them learn the same. Now and then one of them keeps each tenant's model, with the place in the stream that
it has got to; whoever starts takes the kept model and reads on from there. Learning never fails or delays a
call: what can't be written is dropped and counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import structlog
from webhook_shared.errors import Unavailable
from webhook_shared.redis import Backoff, Client, RedisError
from webhook_shared.tasks import ended

from webhook_intelligence import metrics
from webhook_intelligence.prediction.observations import Observation, ObservationKind
from webhook_intelligence.prediction.predictor import RULES, Outcome, Policy, Predictor

log = structlog.get_logger()

STREAM = "prewarm-observations"
LEASE = "prewarm-keeper"
# About so many batches are remembered for those that start; a kept model knows what came before.
STREAM_ENTRIES = 2_000
READ_ENTRIES = 64
READ_BLOCK_S = 2.0
MOST_WAITING = 10_000
MOST_BATCH = 64
MOST_TENANTS = 256
# In memory, of all tenants together: about 1.5 KB each. Tenants that were not seen for long are put away.
MOST_LEARNED = 60_000
KEEP_EVERY_S = 30.0
KEPT_FOR_S = 90 * 86_400
FORMAT = 1
LARGEST_STATE_BYTES = 64 * 2**20

Place = tuple[int, int]
"""An id in the stream."""

_START: Place = (0, 0)


@dataclass
class _Model:
    predictor: Predictor
    through: Place
    changed: bool = False


class Prewarming:
    """Observes and predicts for all tenants. Use as an async context manager."""

    def __init__(self, client: Client, reader: Client, policy: Policy) -> None:
        """Learn from now on.

        Args:
            client: For everything but the reading of the stream.
            reader: Made with `block_s` of READ_BLOCK_S; used by nobody else.
            policy: Of all tenants.
        """
        self.policy = policy
        self._client = client
        self._reader = reader
        self._name = secrets.token_hex(6)
        self._models: OrderedDict[str, _Model] = OrderedDict()
        self._loading = asyncio.Lock()
        self._waiting: deque[tuple[str, Observation]] = deque()
        self._has_work = asyncio.Event()
        self._place = _START
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for work in (self._publish, self._follow, self._keep):
            self._tasks.append(asyncio.create_task(self._forever(work), name=f"prewarming.{work.__name__}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await ended(self._tasks)
        try:
            await self._keep_changed()
        except (RedisError, OSError):
            log.warning("prewarming.not_kept", tenants=sum(model.changed for model in self._models.values()))

    def note(self, tenant: str, seen: Iterable[Observation]) -> None:
        """Something was observed. Returns at once and never fails."""
        for one in seen:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                metrics.PREWARM_OBSERVATIONS.labels("dropped").inc()
            self._waiting.append((tenant, one))
        self._has_work.set()

    async def predictor(self, tenant: str) -> Predictor:
        """The model of a tenant.

        Raises:
            Unavailable: PREDICTION_UNREACHABLE: it must be read from Redis, which is away.
        """
        try:
            return (await self._model(tenant)).predictor
        except (RedisError, OSError):
            raise Unavailable("PREDICTION_UNREACHABLE", "what was learned can't be read now") from None

    async def _forever(self, work: Any) -> None:
        backoff = Backoff(base_s=0.05, cap_s=5.0)
        while True:
            try:
                await work()
                backoff.reset()
            except (RedisError, OSError) as trouble:
                log.warning("prewarming.waiting", work=work.__name__, error=type(trouble).__name__)
                await backoff.wait()
            except Exception:
                log.exception("prewarming.failed", work=work.__name__)
                await backoff.wait()

    async def _publish(self) -> None:
        """One round of writing what was observed."""
        await self._has_work.wait()
        batch = [self._waiting.popleft() for _ in range(min(MOST_BATCH, len(self._waiting)))]
        if not self._waiting:
            self._has_work.clear()
        by_tenant: dict[str, list[Observation]] = {}
        for tenant, seen in batch:
            by_tenant.setdefault(tenant, []).append(seen)
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for tenant, several in by_tenant.items():
                    entry = {"tenant": tenant, "by": self._name, "seen": _pack(tenant, several)}
                    pipeline.xadd(STREAM, entry, maxlen=STREAM_ENTRIES, approximate=True)  # type: ignore[arg-type]  # invariant dict
                await pipeline.execute()
        except BaseException:
            # Written or not, nobody knows; a model learns better from too little than from the same twice.
            metrics.PREWARM_OBSERVATIONS.labels("dropped").inc(len(batch))
            raise

    async def _follow(self) -> None:
        """One round of reading what all replicas have observed."""
        place = f"{self._place[0]}-{self._place[1]}"
        found: Any = await self._reader.xread({STREAM: place}, READ_ENTRIES, int(READ_BLOCK_S * 1000))
        for _, entries in found or ():
            for name, entry in entries:
                here = _place(name)
                await self._apply(here, entry)
                self._place = here
                await asyncio.sleep(0)

    async def _apply(self, here: Place, entry: dict[bytes, bytes]) -> None:
        if b"forget" in entry:
            await self._forget(here, entry.get(b"tenant", b"").decode(errors="replace"))
            return
        try:
            tenant = entry[b"tenant"].decode()
            seen = _unpack(entry[b"seen"])
        except (KeyError, ValueError, TypeError):
            log.warning("prewarming.unreadable_entry", id=f"{here[0]}-{here[1]}")
            return
        model = await self._model(tenant)
        if here <= model.through:
            return
        # First the place: an entry that can't be learned from is not tried again.
        model.through = here
        model.changed = True
        is_own = entry.get(b"by") == self._name.encode()
        for one in seen:
            outcome = model.predictor.observe(one)
            # Every replica sees every observation; each counts only those that it has reported.
            if is_own:
                _count(outcome)

    async def _forget(self, here: Place, tenant: str) -> None:
        async with self._loading:
            self._models[tenant] = _Model(Predictor(self.policy), here)
            # Another replica may have kept its model a moment before it read this.
            await self._client.delete(_key(tenant))

    async def _keep(self) -> None:
        """One round of keeping models, if it is this replica's turn."""
        await asyncio.sleep(KEEP_EVERY_S)
        async with self._loading:
            await self._put_away()
        count_rules(model.predictor for model in self._models.values())
        lease_ms = int(2.5 * KEEP_EVERY_S * 1000)
        if await self._client.set(LEASE, self._name, nx=True, px=lease_ms):
            await self._keep_changed()
        elif await self._client.get(LEASE) == self._name.encode():
            await self._client.pexpire(LEASE, lease_ms)
            await self._keep_changed()

    async def _keep_changed(self) -> None:
        for tenant, model in list(self._models.items()):
            if model.changed:
                await self._keep_one(tenant, model)

    async def _keep_one(self, tenant: str, model: _Model) -> None:
        tree = {"format": FORMAT, "through": model.through, "model": model.predictor.state()}
        model.changed = False
        try:
            packed = await asyncio.to_thread(_deflate, tree)
            await self._client.set(_key(tenant), packed, ex=KEPT_FOR_S)
        except BaseException:
            model.changed = True
            raise

    async def _model(self, tenant: str) -> _Model:
        async with self._loading:
            model = self._models.get(tenant)
            if model is None:
                model = self._models[tenant] = await self._load(tenant)
                await self._put_away()
            self._models.move_to_end(tenant)
            return model

    async def _put_away(self) -> None:
        """Keep and forget the tenants that were not seen for longest, while there is too much in memory.

        Holds `_loading`, so that nothing is learned into a model that goes.
        """
        learned = sum(model.predictor.learned_count for model in self._models.values())
        while len(self._models) > 1 and (len(self._models) > MOST_TENANTS or learned > MOST_LEARNED):
            name, oldest = next(iter(self._models.items()))
            if oldest.changed:
                await self._keep_one(name, oldest)
            learned -= oldest.predictor.learned_count
            del self._models[name]

    async def _load(self, tenant: str) -> _Model:
        packed = await self._client.get(_key(tenant))
        predictor = Predictor(self.policy)
        if not isinstance(packed, bytes):
            return _Model(predictor, _START)
        try:
            tree = await asyncio.to_thread(_inflate, packed)
            if tree["format"] != FORMAT:
                raise ValueError("another format")
            through = (int(tree["through"][0]), int(tree["through"][1]))
            predictor.restore(tree["model"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, zlib.error) as error:
            log.warning("prewarming.unreadable_model", error=type(error).__name__)
            return _Model(Predictor(self.policy), _START)
        return _Model(predictor, through)


def count_rules(predictors: Iterable[Predictor]) -> None:
    """Set PREWARM_RULES_ON."""
    on = dict.fromkeys(RULES, 0)
    for predictor in predictors:
        for name, verdict in predictor.verdicts.items():
            on[name] += verdict.on
    for name, count in on.items():
        metrics.PREWARM_RULES_ON.labels(name).set(count)


async def forget_model(client: Client, tenant: str, *, dry_run: bool) -> int:
    """Let every replica forget what it has learned of a tenant, and what it would learn it from.

    Returns:
        How many models and batches of observations there were.

    Raises:
        REDIS_TROUBLE: Some may be left; to be repeated.
    """
    found, after = int(await client.exists(_key(tenant))), "-"
    while entries := await _entries(client, after):
        after = f"({entries[-1][0].decode()}"
        mine = [
            name
            for name, entry in entries
            if entry.get(b"tenant") == tenant.encode() and b"forget" not in entry
        ]
        found += len(mine)
        if mine and not dry_run:
            await client.xdel(STREAM, *mine)
    if not dry_run:
        forget = {"tenant": tenant, "forget": "1"}
        await client.xadd(STREAM, forget, maxlen=STREAM_ENTRIES, approximate=True)  # type: ignore[arg-type]  # invariant dict
        await client.delete(_key(tenant))
    return found


async def _entries(client: Client, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: Any = await client.xrange(STREAM, min=after, count=READ_ENTRIES)
    return list(found)


def _key(tenant: str) -> str:
    return f"prewarm:{{{tenant}}}"


def _place(name: bytes | str) -> Place:
    first, _, second = (name.decode() if isinstance(name, bytes) else name).partition("-")
    return int(first), int(second)


def _pack(tenant: str, seen: Sequence[Observation]) -> bytes:
    rows = [
        [round(one.at_s, 3), one.kind.value, one.context_id, _pseudonym(tenant, one.actor), *one.links]
        for one in seen
    ]
    return json.dumps(rows, ensure_ascii=True, separators=(",", ":")).encode()


def _unpack(packed: bytes) -> list[Observation]:
    return [
        Observation(float(at_s), ObservationKind(kind), str(context_id), str(actor), tuple(map(str, links)))
        for at_s, kind, context_id, actor, *links in json.loads(packed)
    ]


def _pseudonym(tenant: str, actor: str) -> str:
    """Only whether two actors are the same matters; their names are not kept."""
    if not actor:
        return ""
    digest = hashlib.blake2b(actor.encode("utf-8", "surrogatepass"), digest_size=8, key=tenant.encode()[:64])
    return digest.hexdigest()


def _deflate(tree: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(tree, separators=(",", ":")).encode(), 1)


def _inflate(packed: bytes) -> Any:
    return json.loads(zlib.decompressobj().decompress(packed, LARGEST_STATE_BYTES))


def _count(outcome: Outcome) -> None:
    metrics.PREWARM_OBSERVATIONS.labels("learned").inc()
    if outcome.effect is not None:
        metrics.PREWARM_USES.labels(outcome.effect.value).inc()
    for rule, used in outcome.settled:
        metrics.PREWARM_PREDICTIONS.labels(rule, "used" if used else "unused").inc()
