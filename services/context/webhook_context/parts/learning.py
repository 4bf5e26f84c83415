"""What compresses contexts, and the parts that make it better."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from webhook_shared.dictionaries.administration import DictionaryAdministration
from webhook_shared.dictionaries.copies import Copies, keep_copied
from webhook_shared.dictionaries.samples import Samples
from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.dictionaries.trainer import Trainer
from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.master_keys import MasterKeys, all_of

from webhook_context.packs.samples import rewritten
from webhook_context.settings import ContextWebhook

USE = "contexts"


@dataclass(frozen=True)
class Learning:
    """What compresses contexts, and makes that better.

    Attributes:
        keyring: Seals with the tenants' dictionaries.
        samples: Of what is packed; None where nothing is trained.
        trainer: None where nothing is trained.
    """

    keyring: Keyring
    samples: Samples | None
    trainer: Trainer | None

    @property
    def administration(self) -> DictionaryAdministration:
        """For operators."""
        return DictionaryAdministration(self.keyring, self.trainer)

    def loops(self, tenants: Callable[[], Awaitable[Iterable[str]]]) -> list[Coroutine[Any, Any, None]]:
        """What is to run in the background; copies are made whether anything is trained here or not."""
        copying = keep_copied(self.keyring.dictionaries, tenants)
        return [copying, self.trainer.run()] if self.trainer else [copying]


def learning(
    client: Client, cold: ObjectStore, webhook: ContextWebhook, master_keys: MasterKeys | None = None
) -> Learning:
    """The parts over one Redis and one cold store. Nothing is sent, nothing runs yet."""
    section, held = webhook.dictionaries, master_keys or all_of(webhook.encryption)
    keyring = Keyring(client, held, Dictionaries(client, USE, copies=Copies(cold, held)))
    if not section.training:
        return Learning(keyring, None, None)
    samples = Samples(section.sample_memory)
    rewrite = f"{rewritten.__module__}:{rewritten.__name__}"
    level = webhook.context_lifecycle.compression_level
    return Learning(
        keyring, samples, Trainer(client, keyring, samples, section, rewrite=rewrite, level=level)
    )
