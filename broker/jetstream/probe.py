"""Whether a nats-server is ready: asked in its own protocol, for which no client is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_PROBE_TIMEOUT_S: Final = 1.0
_PROBE_LINES: Final = 32


@dataclass(frozen=True, slots=True)
class UserOptions:
    """Who may use it: `config` goes into the server's configuration (`broker.nats_config.users_config`).

    `name` and `password` are those of a user that may ask for `$JS.API.INFO`, with answers to its `inbox`: so the server
    is asked whether it is ready.
    """

    config: Mapping[str, Any] = field(repr=False)
    name: str
    password: str = field(repr=False)
    inbox: str


async def answers(host: str, port: int, users: UserOptions | None, *, jetstream_api: bool) -> bool:
    """Whether the server greets as one with JetStream and, if asked, answers `$JS.API.INFO`. Bounded in time."""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                greeting = await reader.readline()
                if not greeting.startswith(b"INFO ") or not json.loads(greeting[5:]).get("jetstream"):
                    return False
                return not jetstream_api or await _api_answers(reader, writer, users)
            finally:
                writer.close()
    return False


async def _api_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, users: UserOptions | None) -> bool:
    hello: dict[str, Any] = {"verbose": False, "pedantic": False}
    if users is not None:
        hello |= {"user": users.name, "pass": users.password}
    inbox = f"{users.inbox if users else '_INBOX'}.{secrets.token_hex(8)}".encode()
    writer.write(
        b"CONNECT %b\r\nSUB %b 1\r\nPUB $JS.API.INFO %b 0\r\n\r\n" % (json.dumps(hello).encode(), inbox, inbox)
    )
    for _ in range(_PROBE_LINES):
        line = await reader.readline()
        if line.startswith(b"MSG "):
            return "error" not in json.loads(await reader.readline())
        if not line or line.startswith(b"-ERR"):
            break
    return False
