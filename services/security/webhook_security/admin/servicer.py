"""SecurityAdminService: sources as the operator sees them, and API keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.dictionary.v1.dictionary_pb2 import Dictionary, Training
from webhook.erasure.v1.erasure_pb2 import Place
from webhook.security.v1 import security_admin_service_pb2 as messages
from webhook.security.v1 import source_pb2
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceServicer
from webhook_shared.dictionaries.administration import DictionaryAdministration
from webhook_shared.errors import InvalidArgument, NotFound, PermissionDenied
from webhook_shared.mentions import Name
from webhook_shared.rpc.identity import ALL_TENANTS, ApiKey, ApiKeys, Role, caller

from webhook_security.admin.evidence_servicer import EvidenceRpcs
from webhook_security.admin.paging import page_of
from webhook_security.admin.secrets_servicer import SecretsAdministration, shown_secret
from webhook_security.evidence.forgetting import REJECTIONS, Forgetting, Forgotten
from webhook_security.evidence.keepers import Evidence
from webhook_security.registry.sources import Registry, Source
from webhook_security.settings import ROUTE_NAME

LONGEST_DISPLAY_NAME = 100
LONGEST_REQUEST_ID = 128

_GRANTABLE = (messages.ROLE_READER, messages.ROLE_WRITER, messages.ROLE_OPERATOR)


class SecurityAdminServicer(EvidenceRpcs, SecurityAdminServiceServicer):
    """Answers operators; each sees and grants only what its own credential covers.

    Args:
        registry: The sources.
        api_keys: The stored credentials.
        secrets: Answers what has to do with the sources' secrets.
        evidence: Of what was refused, and of what was done.
        dictionaries: Answers what has to do with compression dictionaries.
        forgetting: Drops refused deliveries.
        verifying: False where signatures are not checked.
    """

    def __init__(
        self,
        registry: Registry,
        api_keys: ApiKeys,
        secrets: SecretsAdministration,
        evidence: Evidence,
        dictionaries: DictionaryAdministration,
        *,
        forgetting: Forgetting,
        verifying: bool,
    ) -> None:
        EvidenceRpcs.__init__(self, evidence)
        self._registry = registry
        self._api_keys = api_keys
        self._secrets = secrets
        self._dictionaries = dictionaries
        self._forgetting = forgetting
        self._verifying = verifying

    async def ListSources(
        self, request: messages.ListSourcesRequest, context: Any
    ) -> messages.ListSourcesResponse:
        """The caller's sources in order. Errors: INVALID_ARGUMENT/FIELD_INVALID for a bad page."""
        seen = [source for source in self._registry.sources() if caller().may(source.tenant)]
        page, token = page_of(seen, request.page_size, request.page_token)
        return messages.ListSourcesResponse(
            sources=[self._shown(source) for source in page], next_page_token=token
        )

    async def Forget(self, request: messages.ForgetRequest, context: Any) -> messages.ForgetResponse:
        """Drop refused deliveries; the call itself is the record. Errors: INVALID_ARGUMENT/FIELD_INVALID."""
        wanted = request.wanted
        name = Name.of(wanted.subject) if wanted.subject else None
        if not wanted.tenant or (wanted.subject and name is None):
            field = "wanted.subject" if wanted.tenant else "wanted.tenant"
            raise InvalidArgument("that says nothing", fields={field: "is needed, with a word in it"})
        if name is not None:
            told = await self._forgetting.naming(wanted.tenant, name, dry_run=request.dry_run)
        elif wanted.context_id:
            told = Forgotten()
        else:
            told = await self._forgetting.all(wanted.tenant, dry_run=request.dry_run)
        place = Place(name=REJECTIONS, found_count=told.found, erased_count=told.erased)
        return messages.ForgetResponse(places=[place])

    async def GetSource(self, request: messages.GetSourceRequest, context: Any) -> messages.GetSourceResponse:
        """One source. Errors: NOT_FOUND/SOURCE_NOT_FOUND."""
        return messages.GetSourceResponse(
            source=self._shown(self._secrets.source(request.tenant, request.tool))
        )

    async def RotateSecret(
        self, request: messages.RotateSecretRequest, context: Any
    ) -> messages.RotateSecretResponse:
        """Add a secret and end the others after an overlap; a minted one is shown once.

        Errors: NOT_FOUND/SOURCE_NOT_FOUND; INVALID_ARGUMENT/FIELD_INVALID; ABORTED/SECRETS_CHANGED;
        UNAVAILABLE/SECRETS_UNREADABLE.
        """
        return await self._secrets.rotate(request)

    async def RetireSecret(
        self, request: messages.RetireSecretRequest, context: Any
    ) -> messages.RetireSecretResponse:
        """End a secret now.

        Errors: NOT_FOUND/SOURCE_NOT_FOUND, SECRET_NOT_FOUND; FAILED_PRECONDITION/LAST_SECRET,
        SECRET_UNUSABLE; ABORTED/SECRETS_CHANGED; UNAVAILABLE/SECRETS_UNREADABLE.
        """
        return await self._secrets.retire(request)

    async def ListSecrets(
        self, request: messages.ListSecretsRequest, context: Any
    ) -> messages.ListSecretsResponse:
        """Secrets and their last use. Errors: NOT_FOUND/SOURCE_NOT_FOUND; INVALID_ARGUMENT/FIELD_INVALID."""
        return await self._secrets.listed(request)

    async def CreateApiKey(
        self, request: messages.CreateApiKeyRequest, context: Any
    ) -> messages.CreateApiKeyResponse:
        """Mint a credential and show it once.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; PERMISSION_DENIED/TENANT_NOT_ALLOWED where the caller would
        grant more than it has.
        """
        problems = _problems(request)
        if problems:
            raise InvalidArgument("the key can't be made so", fields=problems)
        _covered(request.tenants)
        expires = request.expire_time.ToMicroseconds() / 1e6 if request.HasField("expire_time") else None
        record, secret = await self._api_keys.mint(
            request.display_name,
            request.tenants,
            [Role(role) for role in request.roles],
            expire_time=expires,
            request_id=request.request_id,
        )
        # A request id that somebody else used must not show its key.
        _covered(record.tenants)
        return messages.CreateApiKeyResponse(api_key=_shown_key(record), secret=secret)

    async def RevokeApiKey(
        self, request: messages.RevokeApiKeyRequest, context: Any
    ) -> messages.RevokeApiKeyResponse:
        """Make a credential worthless.

        Errors: NOT_FOUND/API_KEY_NOT_FOUND, also for a key of tenants that the caller does not cover.
        """
        found = await self._api_keys.get(request.key_id)
        covered = found is not None and all(caller().may(tenant) for tenant in found.tenants)
        if not covered or not await self._api_keys.revoke(request.key_id):
            raise NotFound("API_KEY_NOT_FOUND", "there is no such key", key_id=request.key_id)
        return messages.RevokeApiKeyResponse()

    async def ListDictionaries(
        self, request: messages.ListDictionariesRequest, context: Any
    ) -> messages.ListDictionariesResponse:
        """What compresses events. Errors: PERMISSION_DENIED/TENANT_NOT_ALLOWED."""
        tenants = {tenant for tenant in self._registry.tenants() if caller().may(tenant)}
        asked = {caller().tenant(request.tenant)} if request.tenant else tenants
        listed = await self._dictionaries.listed(asked)
        return messages.ListDictionariesResponse(dictionaries=[Dictionary(**one) for one in listed])

    async def TrainDictionary(
        self, request: messages.TrainDictionaryRequest, context: Any
    ) -> messages.TrainDictionaryResponse:
        """Train a source now.

        Errors: FAILED_PRECONDITION/SAMPLES_TOO_FEW, TRAINING_DISABLED, TENANT_KEYS_DESTROYED;
        ABORTED/TRAINING_UNDER_WAY; INVALID_ARGUMENT/FIELD_INVALID; PERMISSION_DENIED/TENANT_NOT_ALLOWED.
        """
        tenant = caller().tenant(request.tenant)
        told = await self._dictionaries.train(tenant, request.name)
        return messages.TrainDictionaryResponse(training=Training(**told))

    def _shown(self, source: Source) -> source_pb2.Source:
        row = source.row
        return source_pb2.Source(
            tenant=source.tenant,
            tool=source.tool,
            kind=source.kind,
            title=row.title,
            enabled=bool(source.usable) or not self._verifying,
            schemes=[scheme.name for scheme in row.schemes],
            secrets=[
                shown_secret(secret, usable=secret.reference in source.usable) for secret in source.secrets
            ],
            max_body_bytes=source.max_body_bytes,
            content_types=row.content_types,
            dedup_window=Duration(seconds=source.window_s),
            occurrences_allowed=source.occurrences,
            documentation_url=row.documentation_url,
            checked_date=row.checked_date.isoformat(),
            event_types=sorted(source.event_types or ()),
        )


def _shown_key(record: ApiKey) -> messages.ApiKey:
    return messages.ApiKey(
        key_id=record.key_id,
        display_name=record.display_name,
        tenants=record.tenants,
        roles=[messages.Role.ValueType(role) for role in record.roles],
        create_time=_timestamp(record.create_time),
        expire_time=None if record.expire_time is None else _timestamp(record.expire_time),
    )


def _timestamp(unix_s: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(unix_s * 1e6))
    return timestamp


def _problems(request: messages.CreateApiKeyRequest) -> dict[str, str]:
    problems = {}
    if not 1 <= len(request.display_name) <= LONGEST_DISPLAY_NAME or not request.display_name.isprintable():
        problems["display_name"] = f"is 1 to {LONGEST_DISPLAY_NAME} printable characters"
    if not request.tenants:
        problems["tenants"] = "names at least one tenant, or * for all"
    for tenant in request.tenants:
        if tenant != ALL_TENANTS and not ROUTE_NAME.fullmatch(tenant):
            problems["tenants"] = "a tenant is 1 to 63 of a-z, 0-9, - and _, or * for all"
    if not request.roles or any(role not in _GRANTABLE for role in request.roles):
        problems["roles"] = "names at least one of ROLE_READER, ROLE_WRITER, ROLE_OPERATOR"
    if request.HasField("expire_time") and request.expire_time.seconds <= time.time():
        problems["expire_time"] = "lies in the past"
    if len(request.request_id) > LONGEST_REQUEST_ID:
        problems["request_id"] = f"is at most {LONGEST_REQUEST_ID} characters"
    return problems


def _covered(tenants: Sequence[str]) -> None:
    if not all(caller().may(tenant) for tenant in tenants):
        raise PermissionDenied(
            "TENANT_NOT_ALLOWED", "a key can't be given more tenants than the one that makes it"
        )
