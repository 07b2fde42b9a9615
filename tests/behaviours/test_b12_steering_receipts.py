"""B12: what becomes of an input is told: applied, pending, cancelled or refused with a reason. None is silently lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.state import InputFate
from tests.behaviours.conftest import Figure
from tests.support.crew import Crew
from tests.support.folding import Reader, agree, reading
from tests.support.nats import NatsNode
from tests.support.place import Frame, Place
from tests.support.rawclient import Refusal, Wire, join
from tests.support.stack import Process, Stack

MODES = (None, "auto", "inject", "enqueue", "interrupt", "rollback", "reject")
SESSIONS = {"steered": {}, "newest": {"coalesce": "latest", "maxQueue": 6}}
SENDERS, INPUTS = 4, 40
PAUSE_S = 0.12
KILL_EVERY, KILLS_MIN = 50, 3
"""After so many inputs a worker is killed; fewer than that many times only if none is left."""
AGENTS = "tests.support.agents_steering"
REFUSALS = {"queue_full", "busy", "cannot_inject"}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    # Most runs lose a worker here: none is to be given up for it.
    env = {"POOLS": "default,patient", "MAX_ATTEMPTS": "1000"}
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=1.0, env=env) as running:
        yield running


@dataclass(slots=True)
class Ledger:
    """What the senders of a session have been told."""

    accepted: dict[str, Frame] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    taken_back: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Killer:
    """Kills a worker in the middle of its work whenever `KILL_EVERY` more inputs have been sent."""

    crew: Crew
    rng: random.Random
    tasks: asyncio.TaskGroup
    sent: int = 0

    def note(self) -> None:
        self.sent += 1
        if self.sent % KILL_EVERY == 0:
            self.tasks.create_task(self.crew.kill_owner_of(self.rng.choice(list(SESSIONS))))


async def test_never_silently_lost(stack: Stack, figure: Figure, seed: int) -> None:
    gateways = await stack.start(2, workers=0)
    crew, told = Crew(stack, f"{AGENTS}:stepper"), Counter[str]()
    await crew.start(4)
    async with asyncio.TaskGroup() as tasks:
        killer = Killer(crew, random.Random(seed), tasks)
        for session in SESSIONS:
            steering = _Steering(stack, gateways, session, random.Random(f"{seed}-{session}"), killer)
            tasks.create_task(steering.run(told))
    assert crew.killed >= KILLS_MIN
    assert told["applied"] > told["injected"] > 0
    figure(f"{killer.sent} inputs in all modes, {crew.killed} workers killed: {_said(told)}; 0 lost, seed {seed}")


def _said(told: Counter[str]) -> str:
    parts = [f"{told[key]} {key}" for key in sorted(told) if key != "injected"]
    return ", ".join(parts) + f" ({told['injected']} injected)"


@dataclass(slots=True)
class _Steering:
    """Senders at both gateways steer a session; then each input is looked for."""

    stack: Stack
    gateways: list[Process]
    session: str
    rng: random.Random
    killer: Killer
    ledger: Ledger = field(default_factory=Ledger)

    async def run(self, told: Counter[str]) -> None:
        one, two = (gateway.url for gateway in self.gateways)
        token, session = self.stack.token(), self.session
        async with reading(one, token, session) as first, reading(two, token, session) as second:
            await first.wire.command("session.create", session=session, config=SESSIONS[session])
            async with asyncio.TaskGroup() as tasks:
                for i in range(SENDERS):
                    tasks.create_task(self._send_all((one, two)[i % 2], f"user-{i}", random.Random(self.rng.random())))
            for reader in (first, second):
                await reader.settled(self.ledger.accepted, 60.0)
            await agree((first, second), one, token)
            _settle(first, self.ledger, told)
            await _ask_again(second.wire, session, self.ledger, first.fates, self.rng)
            await second.reached(first.place.last)
            assert second.user_messages() == first.user_messages()

    async def _send_all(self, url: str, user: str, rng: random.Random) -> None:
        """Sends inputs in random modes; sometimes takes the last one back."""
        async with await Wire.open(url, self.stack.token(user)) as wire:
            for i in range(INPUTS):
                input_id = f"{user}-{i}"
                await self._send(wire, input_id, rng.choice(MODES))
                self.killer.note()
                if rng.random() < 0.1:
                    await self._take_back(wire, input_id)
                await asyncio.sleep(rng.expovariate(1 / PAUSE_S))

    async def _send(self, wire: Wire, input_id: str, mode: str | None) -> None:
        fields = {"session": self.session, "inputId": input_id, "content": input_id}
        try:
            reply = await wire.command("input.send", **fields, **({} if mode is None else {"mode": mode}))
        except Refusal as refusal:
            self.ledger.refused[input_id] = refusal.code
            return
        self.ledger.accepted[input_id] = reply
        assert reply["status"] in ("queued", "applied", "ended", "cancelled"), reply

    async def _take_back(self, wire: Wire, input_id: str) -> None:
        """Acknowledged, or refused with the reason: it has been applied, or never was there."""
        code = None
        try:
            reply = await wire.command("input.cancel", session=self.session, inputId=input_id)
        except Refusal as refusal:
            code = refusal.code
        else:
            assert reply["status"] == "cancelled"
            self.ledger.taken_back.add(input_id)
        refused = input_id in self.ledger.refused
        assert code == "input_not_found" if refused else code in (None, "input_already_applied")


def _settle(reader: Reader, ledger: Ledger, told: Counter[str]) -> None:
    """Every input that was sent has one end, and the one that its sender has been told."""
    applied = Counter(reader.user_messages())
    for input_id in (*ledger.accepted, *ledger.refused):
        fate = reader.fates.get(input_id)
        ended = "refused" if fate is None else fate.status
        if input_id in ledger.refused:
            assert ended == "refused"
            assert fate is None or fate.code == ledger.refused[input_id]
            assert ledger.refused[input_id] in REFUSALS
        else:
            assert ended in ("applied", "cancelled"), (input_id, fate)
        assert applied[input_id] == (1 if ended == "applied" else 0)
        assert input_id not in ledger.taken_back or ended == "cancelled"
        told[ended] += 1
        if fate is not None and fate.status == "applied":
            told["injected"] += fate.run != f"run_{input_id}"
    assert set(applied) <= set(ledger.accepted)
    assert len(ledger.accepted) + len(ledger.refused) == SENDERS * INPUTS
    events = Counter(
        e["inputId"] for f in reader.place.frames or () for e in f["events"] if e["type"] == "input.applied"
    )
    assert {input_id for input_id in events if reader.fates[input_id].status == "applied"} == set(applied)


async def _ask_again(wire: Wire, session: str, ledger: Ledger, fates: dict[str, InputFate], rng: random.Random) -> None:
    """Sent again, an input counts once, and the reply says what became of it."""
    for input_id in rng.sample(sorted(ledger.accepted), 20):
        reply = await wire.command("input.send", session=session, inputId=input_id, content="something else")
        assert reply["duplicate"]
        fate = fates[input_id]
        # Of those that ended long ago only that is known.
        assert reply["status"] in ({"ended"} if fate.status == "applied" else {"ended", "cancelled"}), (reply, fate)


@pytest.mark.parametrize("agent", ["asker", "patient_asker"])
async def test_pending_until_somebody_decides(stack: Stack, figure: Figure, agent: str) -> None:
    """An input that comes while an approval is pending waits, is said to wait, and outlives the worker."""
    one, two = await stack.start(2, workers=0)
    crew, token = Crew(stack, f"{AGENTS}:{agent}"), stack.token()
    await crew.start(1)
    session, modes = "asked", ("auto", "enqueue")
    async with reading(one.url, token, session) as near, reading(two.url, token, session) as far:
        await near.wire.input(session, "a", "ask")
        await near.until(lambda state: state.approvals)
        (approval_id,) = near.state.approvals
        for position, mode in enumerate(modes, 1):
            reply = await far.wire.command(
                "input.send", session=session, inputId=f"b{position}", content=mode, mode=mode
            )
            assert (reply["status"], reply["reason"], reply["position"]) == ("pending", "approval", position)
        await crew.kill(crew.workers[0])
        again = await near.wire.command("input.send", session=session, inputId="b1", content="auto")
        assert (again["status"], again["reason"], again["duplicate"]) == ("pending", "approval", True)
        await far.wire.command("approval.respond", session=session, approvalId=approval_id, option="allow_once")
        for reader in (near, far):
            await reader.settled(("a", "b1", "b2"))
        await agree((near, far), two.url, token)
    assert near.user_messages() == ["a", "b1", "b2"]
    runs = [near.fates[input_id].run for input_id in ("a", "b1", "b2")]
    assert runs == ["run_a", "run_a" if agent == "patient_asker" else "run_b1", "run_b2"]
    figure(
        f"{agent}: inputs behind an approval are pending, and applied once it is decided, after its worker was killed"
    )


async def test_refused_with_the_reason(stack: Stack, figure: Figure) -> None:
    """Nobody is at work: the queue fills, and each that finds no place is told so at either gateway."""
    one, two = await stack.start(2, workers=0)
    place = Place("full")
    async with await Wire.open(one.url, stack.token()) as near, await Wire.open(two.url, stack.token()) as far:
        replies: dict[str, Frame] = {}
        codes: list[str] = []

        async def send(wire: Wire, prefix: str) -> None:
            for i in range(20):
                try:
                    replies[f"{prefix}{i}"] = await wire.input("full", f"{prefix}{i}", "hello")
                except Refusal as refusal:
                    codes.append(refusal.code)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(near, "n"))
            tasks.create_task(send(far, "f"))
        assert codes == ["queue_full"] * 24
        # A place in the queue is that at the time of the reply.
        assert all(reply["status"] == "queued" and 1 <= reply["position"] <= 16 for reply in replies.values())
        await stack.worker("echo")
        await far.subscribe(place)
        await far.follow(place, lambda p: len(p.ended) == 16)
    late = Place("full")
    await join(one.url, stack.token(), late)
    assert sorted(place.applied) == sorted(replies)
    assert place.applied == late.applied
    figure("of 40 at once 16 were queued and run, 24 were told `queue_full`")
