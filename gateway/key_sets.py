"""Keys that issuers publish, at a URL or in a file: fetched again and again, and when a token names a key not known yet.

PyJWT's own client would block the event loop, and has no end to how long it keeps what it cannot fetch again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

import structlog

from broker.errors import ConfigError, InvalidName
from broker.subjects import check_tenant
from gateway.config import GatewaySettings
from gateway.jwks import JWKS_BYTES, JwksInvalid, parse_jwks
from gateway.keys import Key

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from prometheus_client import Counter

_log = structlog.get_logger("antiphon.keys")

SOURCES_MAX = 16
"""Key sets that a gateway fetches."""


class CountsFetches(Protocol):
    """Who counts the fetches of key sets, by their outcome: `ok`, `failed`."""

    @property
    def key_fetches(self) -> Counter: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where keys are published, whose they are ("": of whatever issuers the settings allow), and the tenant that their
    tokens are for (None: the one that they name).
    """

    location: str
    issuer: str = ""
    tenant: str | None = None

    @property
    def is_url(self) -> bool:
        return "://" in self.location


def read_sources(text: str) -> tuple[Source, ...]:
    """The sources of `ANTIPHON_JWKS`: `LOCATION`, `ISSUER LOCATION` or `ISSUER LOCATION TENANT`, separated by commas.

    Raises ConfigError.
    """
    sources = tuple(_source(part.split()) for part in text.split(",") if part.strip())
    if len(sources) > SOURCES_MAX:
        raise ConfigError(f"ANTIPHON_JWKS names more than {SOURCES_MAX} key sets")
    return sources


def _source(words: list[str]) -> Source:
    match words:
        case [location]:
            source = Source(location)
        case [issuer, location]:
            source = Source(location, issuer)
        case [issuer, location, tenant]:
            try:
                source = Source(location, issuer, check_tenant(tenant))
            except InvalidName as error:
                raise ConfigError(f"ANTIPHON_JWKS: {error}") from None
        case _:
            raise ConfigError(
                "ANTIPHON_JWKS: each key set is a URL or a file, with its issuer before it if it has one, and its tenant after it"
            )
    if source.is_url and not _is_safe(source.location):
        raise ConfigError(f"ANTIPHON_JWKS: {source.location} must be https: whoever is between could put in own keys")
    return source


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return parts.scheme in ("http", "https")
    try:
        return parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


@dataclass(slots=True)
class KeySet:
    """What is known of one source. Times are monotonic seconds."""

    source: Source
    stale_s: float
    keys: tuple[Key, ...] = ()
    fetched_at: float | None = None
    """When the fetch began that `keys` are from; None: none has succeeded."""
    tried_at: float | None = None
    failures: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def usable(self, now: float) -> tuple[Key, ...]:
        """The keys, unless they could not be fetched again for too long."""
        fresh = self.fetched_at is not None and now - self.fetched_at <= self.stale_s
        return self.keys if fresh else ()


class KeySets:
    """A context, which keeps the keys fresh. It may be entered while no source answers."""

    def __init__(self, sources: tuple[Source, ...], settings: GatewaySettings, metrics: CountsFetches) -> None:
        self._settings = settings
        self._metrics = metrics
        self._sets = [KeySet(source, settings.jwks_stale_s) for source in sources]
        self._http: ClientSession | None = None
        self._tasks = asyncio.TaskGroup()
        self._keeping: list[asyncio.Task[None]] = []
        for known in self._sets:
            if not known.source.is_url:
                # A file that is not there, or is no key set, is a mistake in the settings.
                known.keys = _first_keys(known.source)
                known.fetched_at = known.tried_at = time.monotonic()

    async def __aenter__(self) -> Self:
        if self._sets:
            from aiohttp import ClientSession, ClientTimeout

            self._http = ClientSession(timeout=ClientTimeout(total=self._settings.jwks_timeout_s))
        await self._tasks.__aenter__()
        self._keeping = [self._tasks.create_task(self._keep(known), name="keys") for known in self._sets]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._keeping:
            task.cancel()
        try:
            await self._tasks.__aexit__(exc_type, exc, tb)
        finally:
            if self._http is not None:
                await self._http.close()

    def __bool__(self) -> bool:
        return bool(self._sets)

    def usable(self) -> tuple[Key, ...]:
        """All keys that can be used now."""
        now = time.monotonic()
        return tuple(key for known in self._sets for key in known.usable(now))

    async def renew(self, issuer: str | None) -> float:
        """Fetches again the sets that may hold a key of this issuer, for a token whose key is not `usable` yet.

        Returns 0 when all of them have been fetched since, so that what is not there now is no key; else the seconds
        after which asking again makes sense. Safe to cancel.
        """
        asked_at = time.monotonic()
        asked = [known for known in self._sets if known.source.issuer in ("", issuer)]
        async with asyncio.TaskGroup() as tasks:
            renewing = [tasks.create_task(self._renew(known, asked_at)) for known in asked]
        return max((task.result() for task in renewing), default=0.0)

    def problems(self) -> list[str]:
        """The sources without a key that can be used, a line each."""
        now = time.monotonic()
        return [
            f"no keys from {_shown(known.source)}: tokens signed with them are answered `unavailable`"
            for known in self._sets
            if not known.usable(now)
        ]

    async def _renew(self, known: KeySet, asked_at: float) -> float:
        async with known.lock:
            now = time.monotonic()
            wait_s = 0.0 if known.tried_at is None else known.tried_at + self._settings.jwks_min_interval_s - now
            if wait_s <= 0:
                await self._fetch(known)
                wait_s = self._settings.jwks_min_interval_s
            # Whoever waited for the lock has what was fetched meanwhile.
            return 0.0 if known.fetched_at is not None and known.fetched_at >= asked_at else max(wait_s, 0.1)

    async def _keep(self, known: KeySet) -> None:
        while True:
            async with known.lock:
                if self._due_in(known) <= 0:
                    await self._fetch(known)
            await asyncio.sleep(max(0.1, self._due_in(known)))

    def _due_in(self, known: KeySet) -> float:
        """Seconds until the set is to be fetched again: soon after a failure, then ever more rarely."""
        if known.tried_at is None:
            return 0.0
        settings = self._settings
        wait_s = settings.jwks_max_age_s
        if known.failures:
            wait_s = min(wait_s, settings.jwks_min_interval_s * 2 ** min(known.failures - 1, 16))
        return known.tried_at + wait_s - time.monotonic()

    async def _fetch(self, known: KeySet) -> None:
        began = known.tried_at = time.monotonic()
        try:
            body = await self._read(known.source)
            known.keys = parse_jwks(body, known.source.issuer, known.source.tenant)
        except (OSError, TimeoutError, JwksInvalid) as error:
            known.failures += 1
            self._metrics.key_fetches.labels("failed").inc()
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            _log.warning("keys cannot be fetched", source=_shown(known.source), reason=reason)
        else:
            known.fetched_at, known.failures = began, 0
            self._metrics.key_fetches.labels("ok").inc()

    async def _read(self, source: Source) -> bytes:
        """Raises OSError, TimeoutError."""
        if not source.is_url:
            return await asyncio.to_thread(_read_file, source.location)
        from aiohttp import ClientError

        assert self._http is not None
        try:
            # No redirects: they could lead to what `_is_safe` refuses.
            async with self._http.get(source.location, allow_redirects=False) as response:
                if response.status != 200:
                    raise OSError(f"HTTP {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > JWKS_BYTES:
                        break
                return bytes(body)
        except ClientError as error:
            raise OSError(f"{type(error).__name__}: {error}") from None


def _first_keys(source: Source) -> tuple[Key, ...]:
    try:
        return parse_jwks(_read_file(source.location), source.issuer, source.tenant)
    except OSError as error:
        raise ConfigError(f"ANTIPHON_JWKS: cannot read {source.location}: {error.strerror}") from None
    except JwksInvalid as error:
        raise ConfigError(f"ANTIPHON_JWKS: {source.location}: {error}") from None


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(JWKS_BYTES + 1)


def _shown(source: Source) -> str:
    """Without what a URL may carry of secrets."""
    if not source.is_url:
        return source.location
    parts = urlsplit(source.location)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
