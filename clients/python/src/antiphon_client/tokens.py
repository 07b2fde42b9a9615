"""The token of a client: a fixed one, or one that a provider renews."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from ._json import JsonObject, as_str
from .errors import AntiphonError, ConnectionClosed, Unauthorized
from .protocol import expiry_s
from .threads import Threads, called

logger = logging.getLogger("antiphon_client")

TokenProvider: TypeAlias = Callable[[], Awaitable[str]] | Callable[[], str]
"""Returns a valid token. It is asked when there is none, when the gateway refuses the present
one, and some time before that expires; never twice at once. A coroutine function is called in the
event loop, any other in a thread."""

_RENEW_CHECK_S: Final = 3600.0


class TokenUnavailable(Exception):
    """The provider raised (the cause); asking again later may help. Stays inside the package."""


class Tokens:
    """Keeps the present token; times are in seconds since 1970, by this machine's clock."""

    def __init__(self, token: str | None, provider: TokenProvider | None) -> None:
        if token is None and provider is None:
            raise ValueError("give a token, a token provider, or both")
        self._token = token
        self._provider = provider
        self._threads = Threads(1)
        self._expires_at: float | None = None
        self._fresh = False
        """Whether the token comes from the provider and no gateway has judged it yet."""

    @property
    def renewable(self) -> bool:
        """Whether there is a provider."""
        return self._provider is not None

    async def get(self, now: float) -> str:
        """The token to use now. Raises `TokenUnavailable`, or what the provider says is final."""
        expired = self._expires_at is not None and now >= self._expires_at
        if self._token is None or (expired and self.renewable):
            return await self.renew()
        return self._token

    async def renew(self) -> str:
        """Ask the provider for another token."""
        if self._provider is None:
            raise Unauthorized("unauthorized", "the token is refused and there is no provider")
        try:
            token = await called(self._threads, self._provider)
        except AntiphonError:
            raise  # the provider's own word that there is no sense in going on
        except Exception as error:
            raise TokenUnavailable from error
        self._token, self._expires_at, self._fresh = token, None, True
        return token

    def accepted(self, expires_at: float | None) -> None:
        """A gateway took the token, which it says is valid until then."""
        self._expires_at, self._fresh = expires_at, False

    def refused(self, error: ConnectionClosed) -> None:
        """A gateway does not take the token: drop it, or raise if another one would not help."""
        if not self.renewable or (self._fresh and error.code != "token_expired"):
            raise error
        self._token = None

    def renew_after_s(self, now: float, before_s: float) -> float | None:
        """Seconds until the token should be renewed; None: it cannot, or need not be."""
        if not self.renewable or self._expires_at is None or self._expires_at <= now:
            return None
        left = self._expires_at - now
        return max(left - before_s, left / 2)


async def renewed(tokens: Tokens, before_s: float, refresh: Callable[[str], Awaitable[JsonObject]]) -> bool:
    """Wait until the token is to be renewed, and put a new one in place by `refresh`; False: it stays as it is."""
    pause_s = tokens.renew_after_s(time.time(), before_s)
    if pause_s is None:
        return False
    await asyncio.sleep(min(pause_s, _RENEW_CHECK_S))
    if pause_s > _RENEW_CHECK_S:
        return True  # clocks are set; look again
    try:
        token = await tokens.renew()
    except (TokenUnavailable, AntiphonError):
        logger.warning("no new token; the connection ends with the present one")
        return False
    reply = await refresh(token)
    if reply.get("op") == "error":
        logger.warning("new token refused: %s", as_str(reply.get("code")))
        return False
    tokens.accepted(expiry_s(reply))
    return True
