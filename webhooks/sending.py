"""One request to an endpoint: where it may go, how long it may take, and what its answer means."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from broker.versions import VERSION
from webhooks.addresses import Network, is_among, is_public, parsed
from webhooks.endpoints import Endpoint
from webhooks.errors import AddressRefused
from webhooks.retrying import retry_after_s
from webhooks.signing import headers as signed

_RESOLVING = 2
"""Names that are looked up at once, for one endpoint; threads of its own, so that a slow name server of one does not hold
up the others."""
_THROTTLING = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: `reason` is None if the endpoint has taken the event, else one of `metrics.REASONS`."""

    reason: str | None
    status: int | None = None
    retry_after_s: float | None = None

    @property
    def gone(self) -> bool:
        """The endpoint wants nothing any more."""
        return self.status == 410


class Sender:
    """Requests to one endpoint. A context. Redirects are not followed, proxies of the environment not used, answers not
    read beyond their headers.
    """

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._resolver = _Resolver()
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        for scheme in ("https", "http"):
            connector = aiohttp.TCPConnector(
                limit=0,  # who sends is bounded
                resolver=self._resolver,
                socket_factory=_Guard(self._networks, public=scheme == "https"),
            )
            self._sessions[scheme] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,
                auto_decompress=False,
                headers={"User-Agent": f"antiphon/{VERSION}", "Content-Type": "application/json"},
            )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    async def post(
        self, endpoint: Endpoint, id_: str, body: bytes, timeout_s: float, trace: Mapping[str, str]
    ) -> Outcome:
        """Sends a body, signed at this moment. Raises nothing but CancelledError."""
        url = URL(endpoint.url, encoded=True)
        headers = {**signed(endpoint.keys, id_, int(time.time()), body), **trace}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._sessions[url.scheme].post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return _judged(response)
        except TimeoutError:
            return Outcome("timeout")
        except aiohttp.InvalidURL:
            # As an IPv4 address in another form than the usual one.
            return Outcome("address")
        except aiohttp.ClientConnectorDNSError:
            return Outcome("name")
        except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError):
            return Outcome("tls")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome("address" if isinstance(error.__cause__, AddressRefused) else "connection")


def _judged(response: aiohttp.ClientResponse) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        return Outcome(None, status)
    if status in _THROTTLING:
        return Outcome("throttled", status, retry_after_s(response.headers.get("Retry-After"), time.time()))
    reason = "redirect" if status < 400 else "refused" if status < 500 else "server_error"
    return Outcome(reason, status)


class _Guard:
    """Makes the sockets of connections, to addresses where webhooks may go. Asked for each, after names were resolved."""

    def __init__(self, networks: tuple[Network, ...], *, public: bool) -> None:
        self._networks = networks
        self._public = public

    def __call__(self, info: Any) -> socket.socket:
        family, kind, protocol, _, where = info
        address = parsed(str(where[0]))
        if address is None or not (is_among(address, self._networks) or (self._public and is_public(address))):
            # The same words for each address of a name, so that what tries them all raises this and not a summary.
            raise AddressRefused("webhooks may not go there: see ANTIPHON_WEBHOOK_NETWORKS")
        return socket.socket(family, kind, protocol)


class _Resolver(AbstractResolver):
    """`getaddrinfo`, in threads of its own."""

    def __init__(self) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(_RESOLVING, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        def look_up() -> list[tuple[Any, ...]]:
            return list(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))

        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(where[0]), port=port, family=kind, proto=protocol, flags=flags)
            for kind, _, protocol, _, where in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
