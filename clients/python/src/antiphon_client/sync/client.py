"""The client for programs without an event loop: calls that wait instead of coroutines."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from antiphon_client.client import Client as AsyncClient
from antiphon_client.deciding import Decide
from antiphon_client.errors import AntiphonError
from antiphon_client.hosting import Status
from antiphon_client.listing import SessionInfo, WaitingHandoff
from antiphon_client.protocol import Welcome
from antiphon_client.settings import Settings
from antiphon_client.tokens import TokenProvider
from antiphon_client.tools import Tool

from ._portal import Portal
from ._wrapped import Bound, Iteration, one_by_one
from .session import Session

CLOSING_S: Final = 1.0
"""What closing may take beyond the times of the settings."""


class Client(Bound):
    """A connection to Antiphon for scripts and notebooks; see `antiphon_client.Client`.

    ::

        with Client("https://host", token) as client:
            print(client.session("demo").answer("What is a cursor?"))

    Or, where a block is in the way (a notebook): `client = Client(…).open()`, and `client.close()` at the
    end; the interpreter's exit does that, too. The client has an event loop of its own in a background
    thread, so it does not matter whether one runs where it is used. All threads may use it and all that
    comes from it. Ctrl-C ends any wait at once. It does not survive a fork, and is not pickled.

    Functions that are handed in (tools, `decide`, the token provider) are called in threads of their own;
    coroutine functions, in the client's loop. `timeout_s` is for each wait that has none of its own;
    None: none. All errors are those of `antiphon_client`, and TimeoutError.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: str | TokenProvider | None = None,
        *,
        token_provider: TokenProvider | None = None,
        name: str | None = None,
        device: str | None = None,
        settings: Settings | None = None,
        rand: Callable[[], float] = random.random,
        timeout_s: float | None = None,
    ) -> None:
        self._inner = AsyncClient(
            url, token, token_provider=token_provider, name=name, device=device, settings=settings, rand=rand
        )
        times = self._inner.settings
        self._portal = Portal(timeout_s, times.tool_release_timeout_s + 4 * times.close_timeout_s + CLOSING_S)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, self._portal.signal).atexit = False

    # ---- lifetime

    def open(self, *, timeout_s: float | None = None) -> Self:
        """Connect; returns the client. Raises `ConnectFailed`, `Unauthorized`, or what the provider raised."""
        self._portal.open(self._inner, timeout_s)
        return self

    def close(self) -> None:
        """Close the connection and end the thread; whoever waits gets `ClientClosed`. Safe to repeat."""
        self._portal.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- the connection

    @property
    def device(self) -> str:
        """The name of this device."""
        return self._inner.device

    @property
    def settings(self) -> Settings:
        """The limits in force."""
        return self._inner.settings

    @property
    def welcome(self) -> Welcome | None:
        """What the gateway said of itself, its limits and the user; the latest one."""
        return self._portal.read(lambda: self._inner.welcome)

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._portal.read(lambda: self._inner.connected)

    @property
    def log_away(self) -> bool:
        """Whether the gateway says that it cannot reach the log."""
        return self._portal.read(lambda: self._inner.log_away)

    @property
    def status(self) -> Status:
        """What there is of a connection right now."""
        return self._portal.read(lambda: self._inner.status)

    @property
    def failure(self) -> AntiphonError | None:
        """Why the client has stopped; None while it has not."""
        return self._portal.read(lambda: self._inner.failure)

    def status_changes(self, *, timeout_s: float | None = None) -> Iteration[Status]:
        """Iterate over `status`: as it is now, then whenever it changes."""
        return Iteration(self._portal, one_by_one(self._inner.status_changes()), timeout_s)

    def check_connection(self) -> None:
        """Find out at once whether the connection is alive."""
        self._portal.read(self._inner.check_connection)

    # ---- sessions

    def session(
        self,
        name: str,
        cursor: str | None = None,
        *,
        every: bool = False,
        tools: Iterable[Tool] = (),
        watching: bool = True,
        decide: Decide | None = None,
        saved: Mapping[str, object] | None = None,
    ) -> Session:
        """The session of that name; the same object until it is closed."""
        inner = self._portal.read(
            lambda: self._inner.session(
                name, cursor, every=every, tools=tools, watching=watching, decide=decide, saved=saved
            )
        )
        with self._lock:
            found = self._sessions.get(name)
            if found is None or not found.stands_for(inner):
                found = self._sessions[name] = Session(self, self._portal, inner)
            return found

    def sessions(self, page_size: int = 50, *, timeout_s: float | None = None) -> Iteration[SessionInfo]:
        """The sessions that this user created or wrote to, the newest activity first."""
        return Iteration(self._portal, one_by_one(self._inner.sessions(page_size)), timeout_s)

    def handoffs(self, limit: int | None = None, *, timeout_s: float | None = None) -> list[WaitingHandoff]:
        """Up to `limit` hand-overs that wait for this user's roles, oldest first."""
        return self._portal.wait(self._inner.handoffs(limit), timeout_s)
