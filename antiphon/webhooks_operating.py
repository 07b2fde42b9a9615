"""What an operator asks of the events that wait for endpoints, and of those that were given up."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import orjson

from antiphon.options import names
from broker.clock import utc_text
from broker.config import NatsSettings
from broker.errors import AntiphonError, ConfigError
from broker.jetstream.connection import Connection
from broker.jetstream.outbox import JetStreamOutbox
from broker.outbox import Kept
from webhooks.config import WebhookSettings
from webhooks.due import Due, decode
from webhooks.payload import TEST, body_of
from webhooks.sending import Sender
from webhooks.source import read_endpoints

_SHOWN_MAX = 50
"""Events that were given up that a list shows of each endpoint, the latest; the rest is counted."""


async def operate(nats: NatsSettings, settings: WebhookSettings, action: str, what: str, *, as_json: bool) -> int:
    """`antiphon webhooks list`, `show`, `retry` and `resume`. Returns the exit code."""
    async with Connection(nats, name="antiphon-webhooks") as connection:
        outbox = JetStreamOutbox(connection, "", lease_s=settings.webhook_lease_s, keep_s=settings.webhook_keep_s)
        match action:
            case "list":
                return await _list(outbox, settings, as_json=as_json)
            case "show":
                return await _show(outbox, what)
            case "retry":
                return await _retry(outbox, what)
            case _:
                await outbox.accept_again(what)
                print(f"{what} is told again, from now on")
                return 0


async def test(settings: WebhookSettings, endpoint_id: str) -> int:
    """Sends an event of the type `webhook.test` to an endpoint. Returns the exit code."""
    endpoint = next((e for e in read_endpoints(settings.webhook_file) if e.id == endpoint_id), None)
    if endpoint is None:
        raise ConfigError(f"there is no endpoint {endpoint_id!r} in ANTIPHON_WEBHOOK_FILE")
    id_, now = f"msg_test_{secrets.token_hex(12)}", int(time.time() * 1000)
    due = Due(id_, TEST, now, endpoint.id, "", 0, 0, {})
    async with Sender(settings.networks) as sender:
        timeout_s = endpoint.timeout_s or settings.webhook_timeout_s
        outcome = await sender.post(endpoint, id_, body_of(due, ()), timeout_s, {})
    status = "no answer" if outcome.status is None else f"HTTP {outcome.status}"
    print(f"{endpoint.id}: {outcome.reason or 'delivered'} ({status})")
    return 0 if outcome.reason is None else 1


async def _list(outbox: JetStreamOutbox, settings: WebhookSettings, *, as_json: bool) -> int:
    endpoints = [endpoint.id for endpoint in read_endpoints(settings.webhook_file)]
    gone = await outbox.refused()
    waiting, oldest = Counter[str](), dict[str, int]()
    async for kept in _all(outbox, dead=False):
        waiting[kept.receiver] += 1
        oldest.setdefault(kept.receiver, decode(kept.body).ts)
    dead = [kept async for kept in _all(outbox, dead=True)]
    rows = []
    for id_ in dict.fromkeys([*endpoints, *waiting, *(kept.receiver for kept in dead), *gone]):
        given_up = [kept for kept in dead if kept.receiver == id_]
        row: dict[str, Any] = {"endpoint": id_, "waiting": waiting[id_], "oldest": oldest.get(id_)}
        row |= {"givenUp": len(given_up), "gone": id_ in gone, "known": id_ in endpoints}
        rows.append(row | {"latest": [_summary(kept) for kept in given_up[-_SHOWN_MAX:]]})
    if as_json:
        print(orjson.dumps(rows).decode())
        return 0
    for row in rows:
        _print_row(row)
    return 0


def _print_row(row: dict[str, Any]) -> None:
    notes = [note for note, said in (("gone", row["gone"]), ("not in the file", not row["known"])) if said]
    age = "" if row["oldest"] is None else f" (the oldest from {utc_text(row['oldest'])})"
    noted = f" [{', '.join(notes)}]" if notes else ""
    print(f"{row['endpoint']}{noted}: {row['waiting']} waiting{age}, {row['givenUp']} given up")
    for event in row["latest"]:
        status = "" if event["status"] is None else f" {event['status']}"
        why = f"{event['reason']}{status} after {event['tries']} tries"
        print(f"  {event['id']}  {event['type']}  {event['session']}  {utc_text(event['givenUpAt'])}  {why}")


def _summary(kept: Kept) -> dict[str, Any]:
    wire = orjson.loads(kept.body)
    said = {name: wire[name] for name in ("tries", "reason", "status", "givenUpAt")}
    return {"id": kept.id, "type": wire["due"]["type"], "session": kept.session, **said}


async def _show(outbox: JetStreamOutbox, id_: str) -> int:
    for dead in (False, True):
        async for kept in _all(outbox, dead=dead):
            if kept.id == id_:
                print(orjson.dumps(orjson.loads(kept.body), option=orjson.OPT_INDENT_2).decode())
                return 0
    raise AntiphonError(f"no event {id_!r} waits or was given up")


async def _retry(outbox: JetStreamOutbox, what: str) -> int:
    wanted, count = set(names(what)), 0
    async for kept in _all(outbox, dead=True):
        if "all" in wanted or wanted & {kept.id, kept.receiver}:
            due = decode(orjson.dumps(orjson.loads(kept.body)["due"]))
            await outbox.send_again(kept, dataclasses.replace(due, again=True).encode())
            count += 1
    if not count:
        raise AntiphonError(f"nothing was given up that is {what!r}, an event's id or an endpoint's")
    print(f"{count} events wait again")
    return 0


async def _all(outbox: JetStreamOutbox, *, dead: bool) -> AsyncIterator[Kept]:
    place, end = 0, False
    while not end:
        page, end = await (outbox.given_up if dead else outbox.waiting)("*", place)
        for kept in page:
            place = kept.place
            yield kept
