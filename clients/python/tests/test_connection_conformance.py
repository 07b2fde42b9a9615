"""The shared conversations of a client with a gateway (tests/conformance/cases/connection; its README says what steps mean)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from antiphon_client import (
    AntiphonError,
    CaughtUp,
    Client,
    Entry,
    Gap,
    Reset,
    Session,
    SessionEvent,
    Settings,
    Snapshot,
)
from clients.python.tests.scripted_gateway import Frame, Peer, ScriptedGateway

CASES = sorted((Path(__file__).parents[3] / "tests" / "conformance" / "cases" / "connection").glob("*.json"))
SOON_S = 10.0


def read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return case


def test_there_are_cases() -> None:
    assert len(CASES) >= 30


class Conversation:
    """Plays a case. The program's side runs in `group`; what it saw is in `events`, `results` and `error`."""

    def __init__(self, case: dict[str, Any], group: asyncio.TaskGroup) -> None:
        self.case = case
        self.group = group
        self.events: list[str] = []
        self.results: dict[str, str] = {}
        self.error: str | None = None
        self.changed = asyncio.Event()
        self.session: Session | None = None
        self.ended_at = 0.0
        self.tokens: Iterator[str] = iter(case.get("tokens", ()))

    def scripts(self) -> list[Any]:
        """One script for each connection."""
        parts: list[list[Frame]] = []
        for step in self.case["steps"]:
            if "accept" in step:
                parts.append([])
            parts[-1].append(step)
        return [self._script(part) for part in parts]

    def _script(self, steps: list[Frame]) -> Any:
        async def play(peer: Peer) -> None:
            asked: Frame = {}
            for step in steps:
                asked = await self._step(peer, step, asked)

        return play

    async def _step(self, peer: Peer, step: Frame, asked: Frame) -> Frame:
        match step:
            case {"accept": {"token": token, **welcome}, **more}:
                await self._accept(peer, token, {**welcome, **more})
            case {"expect": fields}:
                return await peer.expect(**fields)
            case {"reply": fields}:
                await peer.ok(asked, **fields)
            case {"refuse": {"code": code, **more}}:
                more.pop("message")
                await peer.error(asked, code, **more)
            case {"send": frames}:
                await peer.send(*frames)
            case {"do": {"send": fields}}:
                self.group.create_task(self._send(**fields))
            case {"close": {"code": code, "reason": reason}}:
                self.ended_at = time.monotonic()
                await peer.close(code, reason)
            case {"cut": True}:
                self.ended_at = time.monotonic()
                peer.abort()
            case _:
                raise AssertionError(step)
        return asked

    async def _accept(self, peer: Peer, token: str, step: Frame) -> None:
        assert time.monotonic() - self.ended_at >= step.get("not_before_ms", 0) / 1000
        if (refused := step.get("refuse")) is not None:
            hello = await peer.expect("hello", token=token)
            await peer.error(hello, refused["code"], retryable=refused["retryable"])
        else:
            await peer.welcome(token, **step.get("welcome", {}))

    async def _send(self, inputId: str, content: str) -> None:  # noqa: N803 - a field of the case
        assert self.session is not None
        try:
            await self.session.send(content, inputId)
        except AntiphonError as error:
            self.results[inputId] = error.code
        else:
            self.results[inputId] = "stored"
        self.changed.set()

    async def follow(self, session: Session) -> None:
        """The program: iterates, and notes what it gets."""
        self.session = session
        try:
            async for event in session.events():
                self.events.append(_said(event))
                self.changed.set()
        except AntiphonError as error:
            self.error = error.code
            self.changed.set()


def _said(event: SessionEvent) -> str:
    match event:
        case Snapshot():
            return f"snapshot {event.as_of}"
        case Entry():
            return f"entry {event.seq}"
        case CaughtUp():
            return f"caught_up {event.seq}"
        case Gap():
            return f"gap {event.start} {event.end}"
        case Reset():
            return f"reset {event.reason}"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_case(path: Path) -> None:
    case = read(path)
    async with asyncio.TaskGroup() as group:
        talk = Conversation(case, group)
        async with ScriptedGateway(*(scripts := talk.scripts())) as gateway:
            client = _client(gateway, talk)
            try:
                async with client:
                    reading = group.create_task(talk.follow(client.session("demo", case.get("cursor"))))
                    await gateway.played(len(scripts))
                    await _settled(talk)
                    assert (client.failure is not None) is ("end" in case)
                    reading.cancel()
                    with suppress(asyncio.CancelledError):
                        await reading
            except AntiphonError as error:
                talk.error = error.code
    assert talk.events == case["events"]
    assert talk.results == case.get("results", {})
    assert talk.error == case.get("end", case.get("error"))


def _client(gateway: ScriptedGateway, talk: Conversation) -> Client:
    async def token() -> str:
        return next(talk.tokens)

    settings = Settings(close_timeout_s=0.2)
    given = token if talk.case.get("tokens") else "t1"
    return Client(gateway.url, given, rand=lambda: 0.0, settings=settings)


async def _settled(talk: Conversation) -> None:
    """Until all that the case expects has come, or it is clear that it does not."""
    case = talk.case
    wanted = (case["events"], case.get("results", {}), case.get("end", case.get("error")))
    with suppress(TimeoutError):
        async with asyncio.timeout(SOON_S):
            while (talk.events, talk.results, talk.error) != wanted:
                talk.changed.clear()
                await talk.changed.wait()
