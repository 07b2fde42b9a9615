"""`antiphon send` and `antiphon tail`: one message, or a session's entries, from a script or a terminal."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from antiphon.place import Place, make_token
from antiphon.showing import Begin, End, Note, Piece, Queued, Show, Showing
from antiphon_client import (
    CaughtUp,
    Client,
    Entry,
    Gap,
    InputNotApplied,
    Receipt,
    Reset,
    Session,
    SessionEvent,
    Snapshot,
)
from broker.errors import ConfigError

_AWAY_LOOK_S = 0.25
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a gateway, and as whom."""

    url: str
    token: str


def access(place: Place, url: str | None, token: str | None, user: str, roles: Sequence[str] = ()) -> Access:
    """From the flags, or from the `antiphon dev` that runs beside us. Raises ConfigError."""
    running = place.running()
    if url is None:
        if running is None:
            raise ConfigError(
                f"no `antiphon dev` runs with data directory {place.path}: start one, or give --url and --token"
            )
        url = running.url
    if token is None:
        if not place.secret_file.exists():
            raise ConfigError("give --token, or set ANTIPHON_TOKEN (`antiphon token` makes one)")
        token = make_token(place.secret(), user, None, {"*": ["admin"]}, roles=roles)
    return Access(url, token)


@asynccontextmanager
async def joined(where: Access, name: str, cursor: str | None = None, *, every: bool = False) -> AsyncIterator[Session]:
    """A session on a connection of its own. Says in a line what it waits for, should the gateway have lost its log."""
    async with Client(where.url, where.token) as client, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_say_when_away(client))
        try:
            yield client.session(name, cursor, every=every)
        finally:
            watching.cancel()


async def _say_when_away(client: Client) -> None:
    while not client.log_away:  # noqa: ASYNC110 (the client tells nobody)
        await asyncio.sleep(_AWAY_LOOK_S)
    print("antiphon: the gateway has lost its log (NATS is away); waiting for it", file=sys.stderr)


def when_of(at: str | None, after: str | None) -> datetime | None:
    """The time that `--at` or `--in` names; None for neither. Raises ConfigError."""
    try:
        if at is not None:
            return datetime.fromisoformat(at).astimezone()
        if after is None:
            return None
        return datetime.now(UTC) + timedelta(seconds=float(after[:-1]) * _UNITS_S[after[-1:]])
    except (KeyError, ValueError, OverflowError):
        said = "--in: 90s, 15m, 2h or 3d" if at is None else "--at: a time, 2026-11-30T09:00"
        raise ConfigError(f"{said}, not {(at or after or '')[:40]!r}") from None


async def send(
    where: Access,
    name: str,
    text: str,
    files: Sequence[str],
    *,
    when: datetime | None = None,
    wait: bool,
    as_json: bool,
) -> int:
    """Sends a message, with files, now or at a time; with `wait`, prints the answer as it comes. Returns the exit code: 0,
    or 1 if the run failed. Raises ConfigError for what cannot be read or sent.
    """
    async with joined(where, name) as session:
        try:
            stored = [await session.upload(path) for path in files]
            receipt = await session.send(text, at=when, attachments=stored)
        except OSError as error:
            raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"this cannot be sent: {error}") from None
        if not wait:
            fields = {"inputId": receipt.input_id, "runId": receipt.run_id, "seq": receipt.seq}
            fields |= {} if receipt.at is None else {"at": receipt.at}
            how = "stored" if receipt.at is None else f"scheduled for {when and when.astimezone():%Y-%m-%d %H:%M:%S}"
            print(json.dumps(fields) if as_json else f"{how} as {receipt.input_id}, starts {receipt.run_id}")
            return 0
        try:
            run_id = await run_of(receipt)
        except InputNotApplied as error:
            print(f"antiphon: the message did not reach the agent: {error.code}", file=sys.stderr)
            return 1
        if run_id is None:
            print("antiphon: a person has the session; the message is with them", file=sys.stderr)
            return 0
        answer = await _answer(session, run_id, show=not as_json)
        outcome = await receipt.finished()
        if as_json:
            fields = {"runId": run_id, "outcome": outcome.kind, "code": outcome.code, "text": answer}
            print(json.dumps(fields))
        elif not outcome.ok:
            print(f"antiphon: the run ended: {outcome.kind} {outcome.message or ''}".rstrip(), file=sys.stderr)
        return 0 if outcome.ok else 1


async def run_of(receipt: Receipt) -> str | None:
    """The run that a message has gone into: its own, or one that was going on when it came.

    None if a human has the session, who may answer at any time, or never. Raises InputNotApplied.
    """
    return (await receipt.applied()).run_id


async def _answer(session: Session, run_id: str, *, show: bool) -> str:
    """What our run says, printed as it comes; returns when the run has ended."""
    showing, ours, texts = Showing(), set[str](), list[str]()
    async for event in session.events():
        if isinstance(event, Snapshot):
            showing.restart(event)
        if not isinstance(event, Entry):
            continue
        for item in showing.entry(event):
            match item:
                case Begin(id_, "assistant", _, run) if run == run_id:
                    ours.add(id_)
                    if texts:
                        texts.append("\n")
                case Piece(id_, piece) if id_ in ours:
                    texts.append(piece)
                    if show:
                        print(piece, end="", flush=True)
                case End(id_, _) if id_ in ours and show:
                    print(flush=True)
                case _:
                    pass
        if run_over(event, run_id):
            break
    return "".join(texts)


def run_over(entry: Entry, run_id: str) -> bool:
    """Whether an entry ends the run."""
    return entry.run == run_id and any(body.get("type") in ("RUN_FINISHED", "RUN_ERROR") for body in entry.events)


async def tail(where: Access, name: str, *, from_start: bool, as_json: bool, until_idle: bool) -> int:
    """Prints a session's entries: as JSON lines, or as a transcript. `until_idle` ends it when nothing runs or waits."""
    async with joined(where, name, every=from_start) as session:
        printer, caught_up = TranscriptPrinter(), False
        async for event in session.events():
            if as_json:
                print(json.dumps(event_json(event)), flush=True)
            else:
                printer.show(event)
            caught_up = caught_up or isinstance(event, CaughtUp)
            if until_idle and caught_up and _is_idle(session):
                break
        printer.finish()
    return 0


def _is_idle(session: Session) -> bool:
    """Nothing runs or waits, and what has led there has been given out: the state may be ahead of the events."""
    state = session.state
    return not state.runs and not state.inputs and session.cursor == session.view.cursor


class TranscriptPrinter:
    """Prints a session as it streams, one message after another."""

    def __init__(self) -> None:
        self._showing = Showing()
        self._open: str | None = None

    def show(self, event: SessionEvent) -> None:
        match event:
            case Snapshot():
                self._showing.restart(event)
            case Entry():
                for item in self._showing.entry(event):
                    self._item(item)
            case _:
                pass

    def finish(self) -> None:
        """Ends the line that is open."""
        if self._open is not None:
            print(flush=True)
            self._open = None

    def _item(self, item: Show) -> None:
        match item:
            case Begin(id_, _, author, _, name):
                self.finish()
                print(f"{author}: " if not name else f"{author} calls {name}: ", end="", flush=True)
                self._open = id_
            case Piece(id_, text):
                if self._open != id_:
                    self.finish()
                    self._open = id_
                print(text, end="", flush=True)
            case End(id_, reason):
                if reason != "complete":
                    print(f" [{reason}]", end="")
                self.finish()
            case Note(text):
                self.finish()
                print(f"({text})", flush=True)
            case Queued():
                pass


def event_json(event: SessionEvent) -> dict[str, object]:
    """An event of the client as a JSON object, in the protocol's terms."""
    match event:
        case Entry():
            wire = {key: value for key, value in dataclasses.asdict(event).items() if value not in (None, "")}
            wire.pop("epoch", None)
            return {"op": "entry"} | wire
        case Snapshot():
            return {"op": "session.snapshot", "session": event.session, "asOf": event.as_of, "state": event.state}
        case CaughtUp():
            return {"op": "session.caught_up", "session": event.session, "seq": event.seq, "cursor": event.cursor}
        case Gap():
            return {"op": "session.gap", "session": event.session, "from": event.start, "to": event.end}
        case Reset():
            return {"op": "reset", "session": event.session, "reason": event.reason}
