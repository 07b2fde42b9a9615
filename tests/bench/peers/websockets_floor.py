"""websockets: readers of `/read/<room>` get what is written to `/write` as `<room> <text>`, by its `broadcast`."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

_rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def _serve(connection: ServerConnection) -> None:
    assert connection.request is not None
    path = connection.request.path
    if path == "/write":
        await connection.send("in")
        async for message in connection:
            assert isinstance(message, str)
            room, _, text = message.partition(" ")
            broadcast(_rooms[room], text)
        return
    room = path.removeprefix("/read/")
    _rooms[room].add(connection)
    try:
        await connection.send("in")
        await connection.wait_closed()
    finally:
        _rooms[room].discard(connection)


async def _main() -> None:
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # readers leave without a word
    options = {"compression": None, "ping_interval": None, "backlog": 1024}
    async with serve(_serve, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        (listener,) = server.sockets
        print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
