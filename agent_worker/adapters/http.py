"""Requests to models and agent services that answer with server-sent events: asked again when that may help, ended at once
when the run is.

One connection for each run: when the run is stopped, its connection is closed, and a model that notices stops.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import structlog

from agent_worker.adapters.sse import EventParser, EventTooLarge, ServerEvent
from agent_worker.errors import ModelFailed
from broker.errors import AntiphonError, RunErrorCode

_log = structlog.get_logger("antiphon.adapters")

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""529: what Anthropic says when it is overloaded."""
_TYPE = re.compile(r"[\w.-]{1,64}", re.ASCII)
_ERROR_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is made, and how long is waited between: `first_s`, doubled each time up to `most_s`, with jitter.

    What the server says (`Retry-After`, `retry-after-ms`) counts instead, up to `told_s`; a longer wait is not waited for.
    """

    attempts: int = 4
    first_s: float = 0.5
    most_s: float = 20.0
    told_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for connecting, and between two pieces of an answer (its first one included)."""

    connect_s: float = 10.0
    read_s: float = 120.0


DEFAULT_RETRIES = Retries()
DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class HttpRequest:
    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class Broken(Exception):
    """The answer ended before its end. `retry_after_s`: the server has said when to ask again."""

    def __init__(self, failed: ModelFailed, retry_after_s: float | None = None) -> None:
        self.failed = failed
        self.retry_after_s = retry_after_s
        super().__init__(str(failed))


class Caller:
    """The HTTP connection of one run; made by `calling`."""

    def __init__(self, http: aiohttp.ClientSession, retries: Retries, told: Callable[[], None]) -> None:
        self._http = http
        self._retries = retries
        self._told = told
        self._failed = 0

    async def events(self, request: HttpRequest) -> AsyncGenerator[ServerEvent, None]:
        """The answer's events. Raises Broken (asking again may help), ModelFailed (it would not)."""
        try:
            async with self._http.post(
                request.url, data=orjson.dumps(request.body), headers=request.headers
            ) as response:
                if response.status != 200:
                    raise await _refusal(response)
                if response.content_type != "text/event-stream":
                    text = "the model's service did not answer with server-sent events: see its address"
                    raise ModelFailed(RunErrorCode.MODEL_REFUSED, text, status=response.status)
                parser = EventParser()
                async for piece in response.content.iter_any():
                    for event in parser.feed(piece):
                        yield event
        except (aiohttp.ClientError, TimeoutError, ConnectionError, EventTooLarge) as error:
            text = f"the model cannot be reached, or its answer broke off ({type(error).__name__})"
            raise Broken(ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, text)) from error

    def worked(self) -> None:
        """An answer was whole: failures before it do not count any more."""
        self._failed = 0

    async def wait(self, broken: Broken) -> None:
        """Waits until the request may be made again. Raises ModelFailed if it has been made often enough."""
        self._failed += 1
        told = broken.retry_after_s
        if self._failed >= self._retries.attempts or (told is not None and told > self._retries.told_s):
            raise broken.failed
        if told is None:
            most = min(self._retries.most_s, self._retries.first_s * 2 ** (self._failed - 1))
            told = random.uniform(most / 2, most)
        self._told()
        _log.info("a model is asked again", status=broken.failed.status, wait_s=round(told, 3))
        await asyncio.sleep(told)


@asynccontextmanager
async def calling(
    retries: Retries, timeouts: Timeouts, told: Callable[[], None], *, trace: Mapping[str, str]
) -> AsyncIterator[Caller]:
    """A connection for one run. `told` is called for each time that something is asked again."""
    timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s, sock_read=timeouts.read_s)
    async with aiohttp.ClientSession(timeout=timeout, headers=dict(trace)) as http:
        yield Caller(http, retries, told)


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    """What a status other than 200 means: nothing of the body but the kind of error is told on."""
    kind = _kind(await response.content.read(_ERROR_BYTES))
    failed = failed_with(response.status, kind)
    if response.status in _AGAIN and kind != "insufficient_quota":
        return Broken(failed, _retry_after(response.headers))
    return failed


def failed_with(status: int, kind: str = "") -> ModelFailed:
    """What an HTTP status says about a model's service; `kind` is the provider's name for the error."""
    text = f"the model's service answered {status}" + (f" ({kind})" if kind else "")
    if status not in _AGAIN:
        code = RunErrorCode.MODEL_REFUSED
    else:
        code = RunErrorCode.MODEL_RATE_LIMITED if status == 429 else RunErrorCode.MODEL_UNAVAILABLE
    return ModelFailed(code, text, status=status)


def failed_by(error: BaseException) -> ModelFailed | None:
    """What an exception of some HTTP client or SDK says about a model's service: by its status, or that there is none.

    None: it says nothing of the kind.
    """
    for status in (getattr(error, "status_code", None), getattr(getattr(error, "response", None), "status_code", None)):
        if isinstance(status, int):
            return failed_with(status)
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"APIConnectionError", "TransportError", "ConnectionError", "ClientConnectionError"}:
        text = f"the model cannot be reached, or its answer broke off ({type(error).__name__})"
        return ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, text)
    return None


@contextmanager
def failing_as_models_do() -> Iterator[None]:
    """For calls of a framework that has a client of its own: what that says of a service is raised as ModelFailed."""
    try:
        yield
    except AntiphonError:
        raise
    except Exception as error:
        failed = failed_by(error)
        if failed is None:
            raise
        raise failed from error


def _kind(body: bytes) -> str:
    """The provider's name for the error, if it looks like one: messages may repeat what people said."""
    try:
        found: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        return ""
    names = (error.get("code"), error.get("type"))
    return next((name for name in names if isinstance(name, str) and _TYPE.fullmatch(name)), "")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None
