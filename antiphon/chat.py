"""`antiphon chat`: a session in the terminal. What streams is shown above the prompt, where one may write meanwhile."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.patch_stdout import patch_stdout

from antiphon.showing import Begin, End, Note, Piece, Queued, Show, Showing
from antiphon.talk import Access, TranscriptPrinter, run_of, run_over
from antiphon_client import (
    AntiphonError,
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

_HELP = (
    "Enter sends · /now TEXT interrupts the run with it · /stop ends the run · /take-back your last waiting message · "
    "/allow, /reject or /answer TEXT what waits for a decision · /take the session over from the agent, /back NOTE · "
    "/attach FILE TEXT sends a file with it · /save ID FILE keeps one · /who is here · /quit or Ctrl-D leaves"
)
StyledText = list[tuple[str, str]]


async def chat(where: Access, name: str, *, first: str | None = None) -> int:
    """Talks in a session until the user leaves. Without a terminal, sends standard input's lines, one after another."""
    async with Client(where.url, where.token) as client:
        session = client.session(name)
        if sys.stdin.isatty() and sys.stdout.isatty():
            await _Terminal(session, client).run(first)
        else:
            await _plain(session, first)
    return 0


async def _plain(session: Session, first: str | None) -> None:
    """For pipes: each line is sent when the one before it has been answered."""
    printer, events = TranscriptPrinter(), session.events()
    lines = [first] if first is not None else []
    lines += [line for line in (await asyncio.to_thread(sys.stdin.read)).splitlines() if line.strip()]
    for line in lines:
        receipt = await session.send(line)
        try:
            run_id = await run_of(receipt)
        except InputNotApplied:
            continue  # somebody has taken it back
        if run_id is None:
            continue
        async for event in events:
            printer.show(event)
            if isinstance(event, Entry) and run_over(event, run_id):
                break
    printer.finish()


def _payload(text: str) -> object:
    """What was typed, as JSON if it is, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _each(session: Session, show: Callable[[SessionEvent], None]) -> None:
    async for event in session.events():
        show(event)


class _Terminal:
    """The prompt, and above it what streams. Finished lines scroll away upwards as ordinary output."""

    def __init__(self, session: Session, client: Client) -> None:
        self._session = session
        self._client = client
        self._showing = Showing()
        self._prompt: PromptSession[str] = PromptSession(erase_when_done=True)
        self._line: StyledText = []
        self._texts: dict[str, str] = {}
        self._authors: dict[str, tuple[str, str]] = {}
        self._mine: list[Receipt] = []
        self._live = False

    async def run(self, first: str | None) -> None:
        with patch_stdout(raw=True):
            self._print([("class:dim", f"Session {self._session.name}. {_HELP}")])
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_each(self._session, self._event))
                if first is not None:
                    await self._guarded(self._send(first))
                await self._read_lines()
                reading.cancel()

    async def _read_lines(self) -> None:
        while True:
            try:
                line = await self._prompt.prompt_async(self._message, refresh_interval=0.5)
            except (EOFError, KeyboardInterrupt):
                return
            text = line.strip()
            if text == "/quit":
                return
            if text:
                await self._guarded(self._obey(text))

    async def _obey(self, text: str) -> None:
        verb, _, rest = text.partition(" ")
        match verb:
            case "/help":
                self._print([("class:dim", _HELP)])
            case "/now":
                await self._send(rest, "interrupt")
            case "/stop":
                await self._stop()
            case "/take-back":
                await self._take_back()
            case "/allow" | "/reject" | "/answer":
                await self._decide(verb, rest)
            case "/take":
                await self._take_over()
            case "/back":
                await self._session.return_handoff(rest)
            case "/attach":
                await self._attach(rest)
            case "/save":
                await self._save(rest)
            case "/who":
                self._who()
            case _:
                await self._send(text)

    async def _decide(self, verb: str, rest: str) -> None:
        """About what has waited longest."""
        wanted = {"/allow": "allow_once", "/reject": "reject_once", "/answer": "answer"}[verb]
        waiting = [a for a in self._session.state.approvals if wanted in a.options]
        if not waiting:
            self._print([("class:dim", "(nothing waits for that)")])
            return
        payload = _payload(rest) if verb == "/answer" else None
        await self._session.respond(waiting[0].approval_id, wanted, payload)

    async def _take_over(self) -> None:
        waiting = self._session.state.handoffs
        await self._session.claim_handoff(handoff_id=waiting[0].handoff_id if waiting else None)

    async def _attach(self, rest: str) -> None:
        path, _, text = rest.partition(" ")
        stored = await self._session.upload(path)
        await self._session.send(text, attachments=[stored])

    async def _save(self, rest: str) -> None:
        id_, _, path = rest.partition(" ")
        if not id_ or not path:
            raise ValueError("say which, and where to: /save ID FILE")
        await self._session.download_to(id_, path)
        self._print([("class:dim", f"(saved as {path})")])

    def _who(self) -> None:
        here = self._session.presence.participants if self._session.presence is not None else ()
        names = ", ".join(f"{person.name or person.id} ({person.state})" for person in here)
        self._print([("class:dim", f"({names or 'nobody else'})")])

    async def _guarded(self, action: Awaitable[None]) -> None:
        """A refusal is said in a line; the chat goes on."""
        try:
            await action
        except (AntiphonError, ValueError, OSError) as error:
            self._print([("ansired", f"! {error}")])

    async def _send(self, text: str, mode: str | None = None) -> None:
        self._mine = [r for r in self._mine if r.input_id in {i.input_id for i in self._session.state.inputs}]
        self._mine.append(await self._session.send(text, mode=mode))

    async def _stop(self) -> None:
        runs = list(self._session.state.runs)
        if not runs:
            self._print([("class:dim", "(nothing runs)")])
        for run in runs:
            await self._session.cancel(run.run_id)

    async def _take_back(self) -> None:
        if not self._mine:
            self._print([("class:dim", "(none of your messages waits)")])
            return
        await self._session.cancel_input(self._mine.pop().input_id)

    def _message(self) -> FormattedText:
        """What stands before the cursor: the line that streams, who waits, and the prompt."""
        parts: StyledText = [*self._line, ("", "\n")] if self._line else []
        for waiting in self._session.state.inputs:
            author = (waiting.by or {}).get("name") or (waiting.by or {}).get("id")
            parts.append(("ansiyellow", f"  waits: {author}: {waiting.content[:60]}\n"))
        state = "" if self._client.connected else "(reconnecting) "
        busy = "… " if self._session.state.runs else ""
        return FormattedText([*parts, ("class:dim", state + busy), ("bold", "> ")])

    def _event(self, event: SessionEvent) -> None:
        match event:
            case Snapshot():
                self._showing.restart(event)
            case Entry():
                for item in self._showing.entry(event):
                    self._item(item)
            case Gap() | Reset():
                self._print([("class:dim", "(the session is read afresh)")])
            case CaughtUp():
                self._live = True
        self._prompt.app.invalidate()

    def _item(self, item: Show) -> None:
        match item:
            case Begin(id_, role, author, _, name):
                self._authors[id_] = author if not name else f"{author} calls {name}", role
                self._texts[id_] = ""
            case Piece(id_, text):
                self._grow(id_, text)
            case End(id_, reason):
                self._close(id_, reason)
            case Note(text):
                self._print([("class:dim", f"({text})")])
            case Queued():
                pass

    def _grow(self, id_: str, text: str) -> None:
        """Whole lines go up; the last one stays above the prompt and grows."""
        whole, newline, rest = (self._texts.get(id_, "") + text).rpartition("\n")
        if newline:
            self._print([*self._head(id_), ("", whole)])
        self._texts[id_] = rest
        self._line = [*self._head(id_, keep=True), ("", rest)]

    def _close(self, id_: str, reason: str) -> None:
        mark = "" if reason == "complete" else f" [{reason.replace('_', ' ')}]"
        self._print([*self._head(id_), ("", self._texts.pop(id_, "")), ("ansired", mark)])
        self._authors.pop(id_, None)
        self._line = []

    def _head(self, id_: str, *, keep: bool = False) -> StyledText:
        """The author, before a message's first line."""
        author, role = self._authors.get(id_, ("", ""))
        if not keep and id_ in self._authors:
            self._authors[id_] = "", role
        style = "bold ansicyan" if role == "user" else "bold ansigreen"
        return [(style, f"{author}: ")] if author else []

    def _print(self, parts: StyledText) -> None:
        print_formatted_text(FormattedText(parts))
