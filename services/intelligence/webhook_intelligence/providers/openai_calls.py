"""Calls to an OpenAI-compatible server: the one retry loop, and what its failures mean to our callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import openai
import structlog
from pydantic import SecretStr
from webhook_shared.errors import FailedPrecondition, ServiceError, Unavailable
from webhook_shared.redis import Backoff

from webhook_intelligence import metrics
from webhook_intelligence.providers.breaker import Breaker
from webhook_intelligence.providers.pace import Pace

log = structlog.get_logger()

T = TypeVar("T")

PROVIDER = "openai"
ATTEMPT_TIMEOUT_S = 60.0
MOST_ATTEMPTS = 6
# A server may ask for more patience than this; then the caller comes again, we don't wait.
LONGEST_WAIT_S = 30.0
# A refused key or model stays refused: nobody is asked again for so long.
REFUSAL_HOLDS_S = 30.0
# Who gives up sooner than this says nothing about the provider.
FAIR_WAIT_S = 5.0
# Calls of one model at once: to begin with, and at most.
FIRST_IN_FLIGHT = 4
MOST_IN_FLIGHT = 32
# The request itself is at fault; smaller parts of it may be good.
_BAD_REQUEST = {400, 413, 422}
# The key, the account or the model is at fault, whatever the request.
_NOT_FOR_US = {401, 402, 403, 404}
_OUT_OF_QUOTA = "insufficient_quota"


class BadRequest(FailedPrecondition):
    """The provider refuses this very request; another one may pass."""

    def __init__(self, status: int) -> None:
        super().__init__(
            "PROVIDER_REFUSED", f"the provider refused the text (HTTP {status})", status=str(status)
        )


class Malformed(Unavailable):
    """The provider answered something that is no answer."""

    def __init__(self, what: str) -> None:
        super().__init__("PROVIDER_UNREACHABLE", f"the provider's answer can't be used: {what}")


class OpenAICalls:
    """Calls of one model of one server. The SDK's own retries are off: this loop is the only one."""

    def __init__(self, api_key: SecretStr, base_url: str, breaker: Breaker | None = None) -> None:
        """Open a client; nothing is sent until the first call.

        Args:
            api_key: Of the account.
            base_url: Of the API; empty: OpenAI's own.
            breaker: Shared with other replicas; None: this process alone.
        """
        self.pace = Pace(first=FIRST_IN_FLIGHT, most=MOST_IN_FLIGHT)
        self._breaker = breaker or Breaker(None, PROVIDER, "")
        self._client = openai.AsyncOpenAI(
            api_key=api_key.get_secret_value(),
            base_url=base_url or None,
            max_retries=0,
            timeout=ATTEMPT_TIMEOUT_S,
        )
        self._refusal: ServiceError | None = None
        self._refused_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def call(
        self,
        operation: str,
        request: Callable[[openai.AsyncOpenAI], Awaitable[T]],
        *,
        deadline: float,
    ) -> T:
        """Make a request until it is answered, refused, or there is no time left.

        Args:
            operation: "embed" or "summarize", for metrics.
            request: Makes one attempt; raises what the SDK raises, or Malformed.
            deadline: In the time of the running loop.

        Raises:
            BadRequest: FAILED_PRECONDITION/PROVIDER_REFUSED for this request.
            FailedPrecondition: PROVIDER_REFUSED for any request: key, quota or model.
            Unavailable: PROVIDER_UNREACHABLE: away, overloaded, or talking nonsense.
        """
        now = asyncio.get_running_loop().time
        backoff = Backoff(base_s=0.5, cap_s=8.0)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            await self._admitted(deadline)
            patience_s = max(0.0, min(ATTEMPT_TIMEOUT_S, deadline - now()))
            try:
                async with asyncio.timeout(patience_s):
                    answer = await request(self._client)
            except (openai.APIError, ValueError, TimeoutError, Malformed) as error:
                outcome, failure, asked_wait_s = _understand(error)
                metrics.PROVIDER_CALLS.labels(PROVIDER, operation, outcome).inc()
                await self._note(
                    outcome, fair=patience_s >= FAIR_WAIT_S or not isinstance(error, TimeoutError)
                )
                if outcome == "refused":
                    self._remember(failure)
                    raise failure from None
                wait_s = asked_wait_s if asked_wait_s is not None else backoff.next_delay_s()
                if outcome == "limited":
                    self.pace.limited(asked_wait_s or 0.0)
                if attempt == MOST_ATTEMPTS or wait_s > LONGEST_WAIT_S or now() + wait_s >= deadline:
                    failure.retry_after_s = max(wait_s, 1.0)
                    raise failure from None
                await asyncio.sleep(wait_s)
            else:
                metrics.PROVIDER_CALLS.labels(PROVIDER, operation, "ok").inc()
                self.pace.answered()
                await self._note("ok", fair=True)
                return answer
        raise AssertionError("the last attempt returns or raises")

    async def _admitted(self, deadline: float) -> None:
        """Wait until the provider may be asked.

        Raises:
            ServiceError: It is known to refuse us, is left alone for now, or asks for more patience than
                there is.
        """
        now = asyncio.get_running_loop().time
        while (held_s := self.pace.held_s) > 0:
            if now() + held_s >= deadline:
                raise Unavailable(
                    "PROVIDER_UNREACHABLE",
                    "the model provider limits our rate",
                    retry_after_s=max(held_s, 1.0),
                )
            await asyncio.sleep(held_s)
        if self._refusal is not None and now() < self._refused_until:
            raise self._refusal.with_traceback(None)
        if pause_s := await self._breaker.ask():
            raise Unavailable(
                "PROVIDER_UNREACHABLE",
                "the model provider has been away and is left alone for a while",
                retry_after_s=max(pause_s, 1.0),
            )

    async def _note(self, outcome: str, *, fair: bool) -> None:
        if outcome in {"ok", "refused", "limited"}:
            await self._breaker.answered()
        elif fair or self._breaker.is_wary:
            await self._breaker.failed()

    def _remember(self, failure: ServiceError) -> None:
        if isinstance(failure, BadRequest):
            return
        log.error("provider.refused", provider=PROVIDER, why=failure.message, held_s=REFUSAL_HOLDS_S)
        self._refusal = failure
        self._refused_until = asyncio.get_running_loop().time() + REFUSAL_HOLDS_S


def _understand(error: Exception) -> tuple[str, ServiceError, float | None]:
    """What a failure is: outcome for metrics, our error, seconds that the server asks us to wait."""
    if isinstance(error, Malformed):
        return "malformed", error, None
    if isinstance(error, openai.APIStatusError):
        return _understand_status(error)
    if isinstance(error, openai.APIConnectionError | TimeoutError):
        return "unreachable", _unreachable("can't be reached"), None
    # An answer that the SDK can't read: no JSON, or not of the shape that was promised.
    return "malformed", Malformed("it is not what the API promises"), None


def _understand_status(error: openai.APIStatusError) -> tuple[str, ServiceError, float | None]:
    status = error.status_code
    if status in _BAD_REQUEST:
        return "refused", BadRequest(status), None
    if status in _NOT_FOR_US or error.code == _OUT_OF_QUOTA:
        return "refused", _refusal(status), None
    if status == 429:
        return "limited", _unreachable("limits our rate"), _asked_wait_s(error)
    return "unreachable", _unreachable(f"answers HTTP {status}"), _asked_wait_s(error)


def _unreachable(what: str) -> Unavailable:
    return Unavailable("PROVIDER_UNREACHABLE", f"the model provider {what}")


def _refusal(status: int) -> FailedPrecondition:
    hint = {
        401: "OPENAI_API_KEY is not valid for it",
        404: "it does not have the model that webhook.ai names",
        429: "the quota of its account is used up",
    }.get(status, "the account may not use it")
    return FailedPrecondition(
        "PROVIDER_REFUSED", f"the model provider refuses us: {hint} (HTTP {status})", status=str(status)
    )


def _asked_wait_s(error: openai.APIStatusError) -> float | None:
    headers = error.response.headers
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue  # absent, or a date, which nobody sends here
        if wait_s >= 0:
            return wait_s
    return None
