"""nats-py's client, where it gives up, or takes a server's word, and must not."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
from nats.aio.client import PING_PROTO, Client

from broker.config import NatsSettings
from broker.errors import ConfigError
from broker.jetstream.credentials import Credentials
from broker.jetstream.tls import tls_context

_VIOLATION = "permissions violation"


class StrictClient(Client):
    """Shows at each connection what the files of the settings hold then, and asks for TLS where they do.

    Making it raises ConfigError if something of that cannot be used.
    """

    def __init__(self, settings: NatsSettings) -> None:
        super().__init__()
        self._settings = settings
        self._credentials = Credentials(settings)
        self._tls = tls_context(settings)

    def credentials(self) -> dict[str, Any]:
        """Options for `connect`."""
        options = self._credentials.options()
        return options if self._tls is None else options | {"tls": self._tls}

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Called with what a server says first, before anything is said to it."""
        wanted = "tls" in self.options or (self._current_server and self._current_server.uri.scheme == "tls")
        # nats-py believes whoever is there that there is no TLS, so who is in between could switch it off.
        if initial_connection and wanted and not info.get("tls_required"):
            raise nats.errors.Error("nats: the server offers no TLS, and the settings ask for it")
        if initial_connection:
            self._read_again()
        await super()._process_info(info, initial_connection)

    def _read_again(self) -> None:
        try:
            if "tls" in self.options:
                self.options["tls"] = tls_context(self._settings)
            self._public_nkey = self._credentials.public_key
        except ConfigError as error:
            raise nats.errors.Error(str(error)) from None

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """In its turn. nats-py's overtakes what waits to be sent, and its answer then says nothing of that."""
        self._pongs.append(future if future is not None else asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _process_err(self, err_msg: str) -> None:
        """Called with what a server complains of. It then hangs up, but after a violation of permissions.

        nats-py would not come back where a user was taken away, a credential has run out, or a certificate was revoked:
        the next connection reads what has taken its place.
        """
        if _VIOLATION in err_msg:
            await super()._process_err(err_msg)
        else:
            reason = err_msg.strip("'")
            await self._error_cb(nats.errors.Error(f"nats: {reason}"))
            await self._process_op_err(nats.errors.Error(f"nats: {reason}"))
