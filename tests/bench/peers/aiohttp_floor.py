"""aiohttp: readers of `/read/<room>` get what is written to `/write` as `<room> <text>`."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import uvloop
from aiohttp import WSMsgType, web

Rooms = defaultdict[str, dict[web.WebSocketResponse, None]]
_ROOMS: web.AppKey[Rooms] = web.AppKey("rooms")


async def _read(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    room = request.app[_ROOMS][request.match_info["room"]]
    room[ws] = None
    await ws.send_str("in")
    try:
        async for _ in ws:
            pass
    finally:
        del room[ws]
    return ws


async def _write(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    await ws.send_str("in")
    rooms = request.app[_ROOMS]
    async for msg in ws:
        if msg.type is WSMsgType.TEXT:
            room, _, text = msg.data.partition(" ")
            for reader in list(rooms[room]):
                try:
                    await reader.send_str(text)
                except ConnectionError:
                    continue  # it has left: its own handler sees that
    return ws


async def _main() -> None:
    app = web.Application()
    rooms: Rooms = defaultdict(dict)
    app[_ROOMS] = rooms
    app.add_routes([web.get("/read/{room}", _read), web.get("/write", _write)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(f"ready http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
