"""Erasures as the contract has them: who may, what is asked, what is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook.erasure.v1.erasure_pb2 import Place
from webhook_shared.errors import InvalidArgument
from webhook_shared.mentions import LONGEST_NAME_CHARS, Name
from webhook_shared.rpc.identity import ALL_TENANTS, Caller

from webhook_context import errors, messages, page_tokens
from webhook_context.erasing.certificate import Signer
from webhook_context.erasing.forgetting import Erasing, Order, Told
from webhook_context.erasing.jobs import Job, Jobs, Scope, Wanted
from webhook_context.erasing.tally import Count
from webhook_context.store.contexts_redis import RedisContexts

USUAL_PAGE, LARGEST_PAGE = 50, 500


class Erasures:
    """Answers requests to erase."""

    def __init__(self, erasing: Erasing, jobs: Jobs, signer: Signer, store: RedisContexts) -> None:
        self._erasing = erasing
        self._jobs = jobs
        self._signer = signer
        self._store = store

    async def carried_out(self, who: Caller, request: pb.EraseRequest) -> AsyncIterator[pb.EraseResponse]:
        """Erase, and tell how far it has come.

        Raises:
            ServiceError: FIELD_INVALID, TENANT_NOT_FOUND, CONTEXT_NOT_FOUND, TENANT_KEYS_DESTROYED,
                ERASURE_UNDER_WAY; after the certificate ERASURE_INCOMPLETE.
            REDIS_TROUBLE: The rest is not erased.
        """
        order = Order(_wanted(who, request), who.key_id, dry_run=request.dry_run)
        async for told in self._erasing.carry_out(order):
            yield _told(told)
            if told.failure is not None:
                raise told.failure

    async def listed(self, who: Caller, request: pb.ListErasuresRequest) -> pb.ListErasuresResponse:
        """Those that were begun, the latest first.

        Raises:
            ServiceError: FIELD_INVALID, TENANT_NOT_FOUND.
            REDIS_TROUBLE: It is not known.
        """
        if request.page_size < 0:
            raise InvalidArgument("page_size is negative", fields={"page_size": "must not be negative"})
        jobs = await self._jobs.listed(await self._tenants(who, request.tenant))
        size = min(request.page_size or USUAL_PAGE, LARGEST_PAGE)
        start = _place_in(jobs, request.page_token)
        page = jobs[start : start + size]
        more = len(jobs) > start + size
        return pb.ListErasuresResponse(
            erasures=map(_erasure, page), next_page_token=page[-1].erasure_id if more else ""
        )

    def key(self) -> bytes:
        """What verifies the signatures of certificates."""
        return self._signer.public_key

    async def _tenants(self, who: Caller, requested: str) -> list[str]:
        if requested:
            return [_allowed(who, requested)]
        if ALL_TENANTS not in who.tenants:
            return sorted(who.tenants)
        # Those that were erased are no tenants any more, and are on record all the same.
        return sorted({*await self._store.tenants(), *await self._jobs.tenants()})


def _wanted(who: Caller, request: pb.EraseRequest) -> Wanted:
    target = request.WhichOneof("target")
    if target is None or (target == "whole_tenant" and not request.whole_tenant):
        raise InvalidArgument(
            "what is to be erased?", fields={"target": "is needed: context_id, subject or whole_tenant"}
        )
    tenant = _allowed(who, request.tenant) if request.tenant else who.tenant("")
    if target == "whole_tenant":
        return Wanted(tenant, Scope.TENANT)
    if target == "context_id":
        messages.context_id_faults(request.context_id)
        return Wanted(tenant, Scope.CONTEXT, request.context_id)
    if len(request.subject) > LONGEST_NAME_CHARS or Name.of(request.subject) is None:
        fault = f"needs a word, and at most {LONGEST_NAME_CHARS} characters"
        raise InvalidArgument(f"subject {fault}", fields={"subject": fault})
    return Wanted(tenant, Scope.SUBJECT, request.subject)


def _allowed(who: Caller, tenant: str) -> str:
    # Nobody learns here which other tenants there are.
    if not who.may(tenant):
        raise errors.tenant_not_found()
    return tenant


def _place_in(jobs: Sequence[Job], token: str) -> int:
    if not token:
        return 0
    for at, job in enumerate(jobs):
        if job.erasure_id == token:
            return at + 1
    raise page_tokens.unknown()


def _told(told: Told) -> pb.EraseResponse:
    return pb.EraseResponse(
        erasure_id=told.erasure_id,
        places=map(_place, told.counts),
        step=told.step,
        certificate_json=told.certificate,
        done=told.done,
    )


def _place(count: Count) -> Place:
    return Place(
        name=count.place,
        found_count=count.found,
        erased_count=count.erased,
        left_count=count.left,
        reason=count.reason,
    )


def _erasure(job: Job) -> pb.Erasure:
    return pb.Erasure(
        erasure_id=job.erasure_id,
        tenant=job.tenant,
        scope=job.scope,
        begin_time=_moment(job.begin_ms),
        end_time=_moment(job.end_ms) if job.end_ms else None,
        complete=job.complete,
        certificate_json=job.certificate,
    )


def _moment(unix_ms: int) -> Timestamp:
    made = Timestamp()
    made.FromMilliseconds(unix_ms)
    return made
