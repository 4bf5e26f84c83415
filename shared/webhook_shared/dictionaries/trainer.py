"""Trains the tenants' dictionaries in the background, and lets the better one win.

One process at a time trains a source, by a lease in Redis; which one does not matter, as each has a fair
share of the samples that came its way. Where the lease is lost, the script of adoption lets one of both win.
A source is trained when it has samples enough and no dictionary of its own, when what comes now becomes
less small than it did at the time of training (drift), or when somebody asks for it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from dataclasses import dataclass, replace

import structlog
from prometheus_client import Counter

from webhook_shared.dictionaries import training
from webhook_shared.dictionaries.samples import Samples
from webhook_shared.dictionaries.settings import DictionarySection
from webhook_shared.dictionaries.store import Dictionaries, Entry
from webhook_shared.errors import Aborted, FailedPrecondition
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client, RedisError
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError, UnknownKey

log = structlog.get_logger()

TRAINING_S = 300.0
"""The lease, and the longest that a training may take."""
DRIFT_SAMPLES = 64
FRESH_S = 600.0
"""Samples tell what comes now; older ones make room."""

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError, ObjectTrouble, EnvelopeError)

TRAININGS = Counter(
    "webhook_dictionary_trainings_total",
    "Trainings of compression dictionaries, by what came of them.",
    ["use", "outcome"],
)


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        adopted: The new dictionary, where it was better by enough and nobody was faster.
        trained: What was tried.
        sample_count: How many samples there were.
    """

    adopted: Entry | None
    trained: training.Trained
    sample_count: int


class Trainer:
    """The training of one use in one process.

    Args:
        client: Has the leases.
        keyring: Whose dictionaries are trained; its tenants need not be prepared.
        samples: What came in here.
        settings: When and how much.
        rewrite: Goes through a sample, as `module:function`.
        level: That compresses.
    """

    def __init__(
        self,
        client: Client,
        keyring: Keyring,
        samples: Samples,
        settings: DictionarySection,
        *,
        rewrite: str,
        level: int,
    ) -> None:
        self._client = client
        self._keyring = keyring
        self._samples = samples
        self._settings = settings
        self._rewrite = rewrite
        self._level = level

    @property
    def dictionaries(self) -> Dictionaries:
        """Those that are trained here."""
        return self._keyring.dictionaries

    async def run(self) -> None:
        """Train for ever, through every outage."""
        backoff = Backoff()
        while True:
            await asyncio.sleep(self._settings.check_interval.total_seconds())
            try:
                await self.look()
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, the looking goes on
                log.warning("dictionary.training_interrupted", error=type(error).__name__)
                await backoff.wait()

    async def look(self) -> None:
        """Train what should be trained now, one after the other."""
        self._samples.clear_older(self._settings.rest_interval.total_seconds())
        for tenant, name in self._samples.sources():
            samples = self._samples.of(tenant, name)
            if len(samples) < self._settings.min_samples:
                continue
            try:
                await self._keyring.prepare([tenant])
                await self._look_at(tenant, name, samples)
            except UnknownKey:
                self._samples.clear(tenant, name)
                await self.dictionaries.forget(tenant)
            except _TROUBLE as error:
                log.warning(
                    "dictionary.not_trained", tenant=tenant, dictionary=name, error=type(error).__name__
                )

    async def _look_at(self, tenant: str, name: str, samples: list[bytes]) -> None:
        newest, outcome = self.dictionaries.newest(tenant, name), None
        # zstd lets others run meanwhile.
        if newest is None or await asyncio.to_thread(self._drifted, tenant, name, newest, samples):
            outcome = await self._leased(tenant, name, samples, over_rest=False)
        if outcome is not None or self._samples.age_s(tenant, name) > FRESH_S:
            # What was looked at is past; the next look is at what comes from now on.
            self._samples.clear(tenant, name)

    def _drifted(self, tenant: str, name: str, newest: Entry, samples: list[bytes]) -> bool:
        held = self.dictionaries.current(tenant, name)
        if held is None or held.id.hex() != newest.id:
            return False
        now = training.ratio(samples[-DRIFT_SAMPLES:], held.content, self._level)
        # Against what the same samples do without any dictionary: other contents alone are no drift.
        plain = training.ratio(samples[-DRIFT_SAMPLES:], b"", self._level)
        gain, gain_then = now / plain, newest.ratio / newest.plain_ratio
        return gain < gain_then * (1 - self._settings.drift_percent / 100)

    async def train(self, tenant: str, name: str) -> Outcome:
        """Train a source now, rested or not.

        Raises:
            FailedPrecondition: SAMPLES_TOO_FEW: not enough has come in through this process.
            Aborted: TRAINING_UNDER_WAY: somebody trains it already.
            UnknownKey: The tenant's keys have been destroyed.
            REDIS_TROUBLE, ObjectTrouble: Try again.
        """
        samples = self._samples.of(tenant, name)
        if len(samples) < self._settings.min_samples:
            raise FailedPrecondition(
                "SAMPLES_TOO_FEW",
                f"this replica has {len(samples)} samples of the source, of {self._settings.min_samples}",
            )
        await self._keyring.prepare([tenant])
        outcome = await self._leased(tenant, name, samples, over_rest=True)
        if outcome is None:
            raise Aborted("TRAINING_UNDER_WAY", "a dictionary for this source is being trained")
        return outcome

    async def _leased(
        self, tenant: str, name: str, samples: list[bytes], *, over_rest: bool
    ) -> Outcome | None:
        lease, rest = (f"dictionary-{what}:{{{tenant}}}:{self._use}/{name}" for what in ("lease", "rest"))
        if not over_rest and await self._client.exists(rest):
            return None
        holder = secrets.token_hex(8)
        try:
            # In here: who is cancelled while Redis answers may have the lease, and gives it back.
            if not await self._client.set(lease, holder, nx=True, ex=int(TRAINING_S)):
                return None
            outcome = await self._train(tenant, name, samples)
            if outcome.adopted is None:
                # The next try with the like of these samples would end the same.
                await self._client.set(rest, "1", px=int(self._settings.rest_interval.total_seconds() * 1000))
        finally:
            # Where somebody else has it by now, it ends by itself a little later than it could.
            if await self._client.get(lease) == holder.encode():
                await self._client.delete(lease)
        return outcome

    async def _train(self, tenant: str, name: str, samples: list[bytes]) -> Outcome:
        before, held = self.dictionaries.newest(tenant, name), self.dictionaries.current(tenant, name)
        task = training.Task(
            samples, self._rewrite, self._level, held.content if held else b"", self._settings.size
        )
        trained = await in_process(task)
        better = trained.ratio >= trained.in_use_ratio * (1 + self._settings.min_gain_percent / 100)
        adopted = None
        if trained.content and better:
            entry = Entry(
                use=self._use,
                name=name,
                generation=0,
                id="",
                create_ms=0,
                from_ms=0,
                size_bytes=len(trained.content),
                sample_count=len(samples),
                ratio=round(trained.ratio, 3),
                plain_ratio=round(trained.plain_ratio, 3),
                previous_ratio=round(trained.in_use_ratio, 3),
            )
            adopted = await self.dictionaries.adopt(tenant, trained.content, entry, before, self._keyring)
        outcome = "adopted" if adopted else "beaten" if trained.content and better else "no_gain"
        TRAININGS.labels(self._use, outcome).inc()
        log.info(
            "dictionary.trained",
            tenant=tenant,
            dictionary=f"{self._use}/{name}",
            outcome=outcome,
            samples=len(samples),
            ratio=round(trained.ratio, 2),
            in_use_ratio=round(trained.in_use_ratio, 2),
            plain_ratio=round(trained.plain_ratio, 2),
        )
        return Outcome(adopted, replace(trained, content=b""), len(samples))

    @property
    def _use(self) -> str:
        return self.dictionaries.use


async def in_process(task: training.Task) -> training.Trained:
    """Train in a process of its own, at the lowest priority; it ends with the caller.

    Raises:
        OSError, TimeoutError: It failed; nothing came of it.
    """
    # Of the environment it gets what Python needs, and no secret.
    environ = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        training.__name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environ,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(training.encoded(task)), TRAINING_S - 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"the training ended with {process.returncode}")
    return training.trained_of(said)


_ENVIRONMENT = frozenset({"PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR"})
