"""`antiphon sessions` and `antiphon handoffs`."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

from antiphon.talk import Access
from antiphon_client import Client


async def list_sessions(where: Access, *, as_json: bool) -> None:
    """A line for each of the user's sessions."""
    async with Client(where.url, where.token) as client:
        async for info in client.sessions():
            if as_json:
                print(json.dumps(dataclasses.asdict(info)))
            else:
                print(f"{_when(info.updated_at)}  {info.status:<15}  {info.session}  {info.title or ''}".rstrip())


async def list_handoffs(where: Access, *, as_json: bool) -> None:
    """A line for each hand-over that waits, with the way to answer it."""
    async with Client(where.url, where.token) as client:
        waiting = await client.handoffs()
    for item in waiting:
        handoff = item.handoff
        if as_json:
            print(json.dumps(dataclasses.asdict(item)))
        else:
            print(f"{item.session}  for {handoff.to}: {handoff.reason}  {handoff.summary}".rstrip())
            print(f"    antiphon chat {item.session} --roles {handoff.to}   then /take")
    if not waiting and not as_json:
        print("no hand-over waits for your roles")


def _when(ms: int | None) -> str:
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
