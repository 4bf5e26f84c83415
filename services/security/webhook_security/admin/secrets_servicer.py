"""The RPCs of SecurityAdminService that have to do with secrets, between messages and rotations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from webhook.security.v1 import security_admin_service_pb2 as messages
from webhook.security.v1 import source_pb2
from webhook_shared.errors import InvalidArgument, NotFound
from webhook_shared.rpc.identity import caller

from webhook_security.admin.paging import page_of
from webhook_security.admin.rotation import LONGEST_OVERLAP_S, Rotations
from webhook_security.registry.sources import Registry, Source
from webhook_security.secrets.rotated import ADDED_PREFIX
from webhook_security.secrets.secret import Secret
from webhook_security.secrets.uses import NEVER, SecretUses

DEFAULT_OVERLAP_S = 24 * 3600.0
LONGEST_REQUEST_ID = 128
STORED = "stored"
"""Where a secret is that a rotation added, as operators see it."""


class SecretsAdministration:
    """Answers operators who ask about secrets; each reaches only what its own credential covers.

    Args:
        registry: The sources.
        rotations: Changes secrets.
        uses: What was verified with them.
        clock: Unix seconds.
    """

    def __init__(
        self,
        registry: Registry,
        rotations: Rotations,
        uses: SecretUses,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._rotations = rotations
        self._uses = uses
        self._clock = clock

    async def rotate(self, request: messages.RotateSecretRequest) -> messages.RotateSecretResponse:
        """Add a secret, end the others after an overlap."""
        overlap_s = DEFAULT_OVERLAP_S
        if request.HasField("overlap"):
            overlap_s = request.overlap.ToMicroseconds() / 1e6
        problems = {}
        if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
            problems["overlap"] = "is 0s to 90 days"
        if len(request.request_id) > LONGEST_REQUEST_ID:
            problems["request_id"] = f"is at most {LONGEST_REQUEST_ID} characters"
        if problems:
            raise InvalidArgument("the secret can't be rotated so", fields=problems)
        source = self.source(request.tenant, request.tool)
        done = await self._rotations.rotate(
            source, secret=request.secret, overlap_s=overlap_s, request_id=request.request_id
        )
        shown = {one.secret.key_id: one for one in await self._shown([self._current(source)])}
        return messages.RotateSecretResponse(
            added=shown[done.key_id],
            secret=done.minted,
            ending=[shown[key_id] for key_id in done.ending],
            replicas_behind=done.behind,
        )

    async def retire(self, request: messages.RetireSecretRequest) -> messages.RetireSecretResponse:
        """End a secret now."""
        source = self.source(request.tenant, request.tool)
        behind = await self._rotations.retire(source, request.key_id)
        shown = {one.secret.key_id: one for one in await self._shown([self._current(source)])}
        return messages.RetireSecretResponse(retired=shown.get(request.key_id), replicas_behind=behind)

    async def listed(self, request: messages.ListSecretsRequest) -> messages.ListSecretsResponse:
        """A page of sources, each with its secrets and their last use."""
        if request.tenant and request.tool:
            return messages.ListSecretsResponse(
                secrets=await self._shown([self.source(request.tenant, request.tool)])
            )
        tenant = caller().tenant(request.tenant) if request.tenant else ""
        covered = (
            source
            for source in self._registry.sources()
            if caller().may(source.tenant)
            and tenant in {"", source.tenant}
            and request.tool in {"", source.tool}
        )
        page, token = page_of(covered, request.page_size, request.page_token)
        return messages.ListSecretsResponse(secrets=await self._shown(page), next_page_token=token)

    def source(self, tenant: str, tool: str) -> Source:
        """A source of the caller's.

        Raises:
            NotFound: SOURCE_NOT_FOUND.
            PermissionDenied: TENANT_NOT_ALLOWED.
        """
        tenant = caller().tenant(tenant)
        source = self._registry.find(tenant, tool)
        if source is None:
            raise NotFound("SOURCE_NOT_FOUND", "there is no such source", tenant=tenant, tool=tool)
        return source

    def _current(self, source: Source) -> Source:
        return self._registry.find(source.tenant, source.tool) or source

    async def _shown(self, sources: Iterable[Source]) -> list[messages.SecretStatus]:
        sources = list(sources)
        uses = {tenant: await self._uses.of(tenant) for tenant in {source.tenant for source in sources}}
        now = self._clock()
        shown = []
        for source in sources:
            for secret in source.secrets:
                status = messages.SecretStatus(
                    tenant=source.tenant,
                    tool=source.tool,
                    secret=shown_secret(secret, usable=secret.reference in source.usable),
                    live=secret.reference in source.usable and secret.holds(now),
                )
                use = uses[source.tenant].get(f"{source.tool}/{secret.key_id}", NEVER)
                status.use_count = use.number
                if use.last:
                    status.last_use_time.CopyFrom(_timestamp(use.last))
                shown.append(status)
        return shown


def shown_secret(secret: Secret, *, usable: bool) -> source_pb2.SecretInfo:
    """A secret as operators see it, without its value."""
    reference = STORED if secret.reference.startswith(ADDED_PREFIX) else secret.reference
    info = source_pb2.SecretInfo(key_id=secret.key_id, reference=reference, usable=usable)
    if math.isfinite(secret.not_before):
        info.not_before_time.CopyFrom(_timestamp(secret.not_before))
    if math.isfinite(secret.not_after):
        info.not_after_time.CopyFrom(_timestamp(secret.not_after))
    return info


def _timestamp(unix_s: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(unix_s * 1e6))
    return stamp
