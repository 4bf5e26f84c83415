"""Everything that keeps evidence: of what was refused, and of what was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from webhook.security.v1 import audit_pb2
from webhook_shared.audit.chain import AuditChain, Seal
from webhook_shared.audit.trail import GATHERED_S
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.master_keys import MasterKeys
from webhook_shared.tasks import ended

from webhook_security.evidence.audit import Audit
from webhook_security.evidence.rejection_store import RejectionStore
from webhook_security.evidence.rejections import Rejections, Samples
from webhook_security.evidence.source_changes import SourceChanges
from webhook_security.registry.sources import Registry
from webhook_security.settings import SecuritySection


@dataclass(frozen=True)
class Evidence:
    """What keeps it and what shows it.

    Attributes:
        store: What was refused.
        chain: What is on record.
        keyring: Opens quarantined events.
        samples: Choose what of the refused is kept.
        rejections: Hear of each refusal.
        audit: Writes the chain; None where nothing is recorded.
        changes: Notices what becomes of the sources; None where nothing is recorded.
        ended: Set when nobody is to follow the chain any longer.
    """

    store: RejectionStore
    chain: AuditChain
    keyring: Keyring
    samples: Samples
    rejections: Rejections
    audit: Audit | None
    changes: SourceChanges | None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(
        cls,
        client: Client,
        keyring: Keyring,
        master_keys: MasterKeys,
        registry: Registry,
        security: SecuritySection,
    ) -> Evidence:
        """As the settings want it."""
        seal = Seal(master_keys)
        chain = AuditChain(client, seal, most=security.audit.max_records, contract=audit_pb2)
        store = RejectionStore(
            client,
            keyring,
            security.rejections,
            lambda: [(source.tenant, source.tool) for source in registry.sources()],
        )
        samples = Samples(store, security.rejections)
        audit = Audit(chain, seal, every_s=GATHERED_S) if security.enable_audit_logging else None
        changes = SourceChanges(registry, audit, seal, repr(security)) if audit else None
        return cls(store, chain, keyring, samples, Rejections(samples, audit), audit, changes)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write in the background while inside, and what is left on leaving."""
        tasks = [asyncio.create_task(self.samples.journal.keep())]
        if self.audit and self.changes:
            tasks.append(asyncio.create_task(self.audit.journal.keep()))
            tasks.append(asyncio.create_task(self.changes.keep()))
        try:
            yield
        finally:
            await ended(tasks)
            await self.samples.journal.close()
            if self.audit:
                await self.audit.journal.close()

    def end(self) -> None:
        """Let those go who follow the chain."""
        self.ended.set()
