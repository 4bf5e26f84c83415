"""What operators ask of compression dictionaries, as the fields of messages.

The messages are of `webhook.dictionary.v1`; a service makes them: `Dictionary(**fields)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from webhook_shared import compression
from webhook_shared.dictionaries.store import Entry
from webhook_shared.dictionaries.trainer import Trainer
from webhook_shared.errors import FailedPrecondition, InvalidArgument
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import UnknownKey


class DictionaryAdministration:
    """Answers operators; which tenants a caller may ask for is for the service to say.

    Args:
        keyring: Has the dictionaries.
        trainer: Trains them; None where nothing is trained.
    """

    def __init__(self, keyring: Keyring, trainer: Trainer | None) -> None:
        self._keyring = keyring
        self._trainer = trainer

    async def listed(self, tenants: Iterable[str]) -> list[dict[str, Any]]:
        """The shipped ones, then those of these tenants of this service's use: fields of `Dictionary`.

        Raises:
            REDIS_TROUBLE: Try again.
        """
        shown: list[dict[str, Any]] = [
            {
                "name": one.name,
                "id": one.id.hex(),
                "generation": one.generation,
                "in_use": compression.shipped(one.name) == one,
                "size_bytes": len(one.content),
            }
            for one in compression.all_shipped()
        ]
        for tenant in sorted(tenants):
            try:
                await self._keyring.prepare([tenant])
            except UnknownKey:
                continue
            held = self._keyring.dictionaries
            shown += [self._shown(tenant, one) for one in held.entries(tenant) if one.use == held.use]
        return shown

    async def train(self, tenant: str, name: str) -> dict[str, Any]:
        """Train now; the fields of `Training`.

        Raises:
            InvalidArgument: FIELD_INVALID without a name.
            FailedPrecondition: SAMPLES_TOO_FEW, TRAINING_DISABLED, TENANT_KEYS_DESTROYED.
            Aborted: TRAINING_UNDER_WAY.
            REDIS_TROUBLE, ObjectTrouble: Try again.
        """
        if not name:
            raise InvalidArgument("which source?", fields={"name": "is needed: github"})
        if self._trainer is None:
            raise FailedPrecondition("TRAINING_DISABLED", "webhook.dictionaries.training is off")
        try:
            outcome = await self._trainer.train(tenant, name)
        except UnknownKey:
            raise FailedPrecondition(
                "TENANT_KEYS_DESTROYED", "the tenant's keys have been destroyed"
            ) from None
        return {
            "adopted": self._shown(tenant, outcome.adopted) if outcome.adopted else None,
            "ratio": outcome.trained.ratio,
            "in_use_ratio": outcome.trained.in_use_ratio,
            "plain_ratio": outcome.trained.plain_ratio,
            "sample_count": outcome.sample_count,
        }

    def _shown(self, tenant: str, entry: Entry) -> dict[str, Any]:
        return {
            "tenant": tenant,
            "use": entry.use,
            "name": entry.name,
            "id": entry.id,
            "generation": entry.generation,
            "in_use": self._keyring.dictionaries.is_used(tenant, entry),
            "create_time": _timestamp(entry.create_ms),
            "use_time": _timestamp(entry.from_ms),
            "size_bytes": entry.size_bytes,
            "sample_count": entry.sample_count,
            "ratio": entry.ratio,
            "plain_ratio": entry.plain_ratio,
            "previous_ratio": entry.previous_ratio,
        }


def _timestamp(unix_ms: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(unix_ms)
    return timestamp
