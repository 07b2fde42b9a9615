"""B14: two people press send at once, at two gateways. Under each `on_busy` there is one outcome, the same for all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.behaviours.conftest import Figure
from tests.support.crew import Crew
from tests.support.folding import Reader, agree, reading
from tests.support.nats import NatsNode
from tests.support.place import Frame
from tests.support.rawclient import Refusal
from tests.support.stack import Process, Stack

ROUNDS = 6
KILLED_ROUNDS = 3
MODES = ("auto", "inject", "enqueue", "interrupt", "rollback", "reject")
OVERTAKING = ("interrupt", "rollback")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=[3.0])
async def stack(request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    """With a lease of that many seconds."""
    # Runs lose worker after worker here: none is to be given up for it.
    env = {"POOLS": "plain,steerable", "MAX_ATTEMPTS": "1000"}
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=request.param, env=env) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Case:
    """A mode, for an agent that takes inputs in the middle of a run or not, said by the config or by each message."""

    mode: str
    agent: str
    by_message: bool

    @property
    def session(self) -> str:
        return f"{self.mode}-{self.agent}-{'message' if self.by_message else 'config'}"

    @property
    def config(self) -> dict[str, str]:
        other = "reject" if self.mode != "reject" else "enqueue"
        return {"onBusy": other if self.by_message else self.mode, "pool": self.agent}

    @property
    def fields(self) -> dict[str, str]:
        return {"mode": self.mode} if self.by_message else {}

    @property
    def injects(self) -> bool:
        return self.mode in ("auto", "inject") and self.agent == "steerable"

    @property
    def refusal(self) -> str | None:
        """What both are told in the middle of a run, if neither is taken."""
        if self.mode == "reject":
            return "busy"
        return "cannot_inject" if self.mode == "inject" and self.agent == "plain" else None


CASES = [
    Case(mode, agent, by_message) for mode in MODES for agent in ("plain", "steerable") for by_message in (False, True)
]


@dataclass(slots=True)
class Told:
    """What two senders have been told: by inputId, the reply or the code of the refusal."""

    accepted: dict[str, Frame] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    async def send(self, reader: Reader, input_id: str, content: str, fields: dict[str, str]) -> None:
        session = reader.place.session
        try:
            self.accepted[input_id] = await reader.wire.command(
                "input.send", session=session, inputId=input_id, content=content, **fields
            )
        except Refusal as refusal:
            self.refused[input_id] = refusal.code


async def test_one_outcome(stack: Stack, figure: Figure, seed: int) -> None:
    gateways, _ = await _start(stack)
    async with asyncio.TaskGroup() as tasks:
        played = [tasks.create_task(_play(stack, gateways, case, ROUNDS, seed)) for case in CASES]
    firsts = [task.result() for task in played]
    share = sum(firsts) / len(firsts) / (2 * ROUNDS)
    figure(
        f"{len(CASES)} ways, {2 * ROUNDS} pairs each, at two gateways: one outcome each time, for both and after replay "
        f"({share:.0%} won by the first gateway)"
    )


@pytest.mark.parametrize("stack", [1.0], indirect=True)
async def test_one_outcome_while_workers_die(stack: Stack, figure: Figure, seed: int) -> None:
    gateways, crews = await _start(stack, workers=3)
    # In every fourth session, each time in another round.
    killed = {
        case.session: (i // 4 % KILLED_ROUNDS, crews[case.agent]) for i, case in enumerate(CASES) if i % 4 == i // 4 % 4
    }
    async with asyncio.TaskGroup() as tasks:
        for case in CASES:
            tasks.create_task(_play(stack, gateways, case, KILLED_ROUNDS, seed, killed.get(case.session)))
    kills = sum(crew.killed for crew in crews.values())
    assert kills == len(killed) == len(MODES)
    figure(f"{kills} workers killed just when both sent, one under each mode: the same")


async def _start(stack: Stack, workers: int = 2) -> tuple[list[Process], dict[str, Crew]]:
    crews = {agent: Crew(stack, f"tests.support.agents_steering:{agent}", agent) for agent in ("plain", "steerable")}
    async with asyncio.TaskGroup() as tasks:
        gateways = [tasks.create_task(stack.gateway()) for _ in range(2)]
        for crew in crews.values():
            tasks.create_task(crew.start(workers))
    return [task.result() for task in gateways], crews


async def _play(
    stack: Stack, gateways: list[Process], case: Case, rounds: int, seed: int, kill: tuple[int, Crew] | None = None
) -> int:
    """Rounds of one case in a session of its own; how often the sender at the first gateway came first.

    With `kill`, a worker is killed in that round.
    """
    one, two = (gateway.url for gateway in gateways)
    rng, first = random.Random(f"{seed}-{case.session}"), 0
    async with (
        reading(one, stack.token("user-1"), case.session) as left,
        reading(two, stack.token("user-2"), case.session) as right,
    ):
        await left.wire.command("session.create", session=case.session, config=case.config)
        pair = (left, right)
        for i in range(rounds):
            crew = kill[1] if kill is not None and kill[0] == i else None
            first += await _while_busy(pair, case, f"r{i}", rng, crew)
            first += await _while_idle(pair, case, f"i{i}", rng)
        await agree(pair, one, stack.token("user-3"))
        _check_transcript(left, case)
    return first


async def _at_once(pair: tuple[Reader, Reader], ids: list[str], contents: list[str], case: Case) -> Told:
    told = Told()
    async with asyncio.TaskGroup() as tasks:
        for reader, input_id, content in zip(pair, ids, contents, strict=True):
            tasks.create_task(told.send(reader, input_id, content, case.fields))
    return told


async def _while_busy(
    pair: tuple[Reader, Reader], case: Case, name: str, rng: random.Random, crew: Crew | None
) -> bool:
    """A run is going on that does not end by itself when both send. Returns whether the first gateway's came first.

    One of the `crew`, if there is one, is killed at the same time.
    """
    left, right = pair
    run, ids = f"run_{name}", [f"{name}a", f"{name}b"]
    await rng.choice(pair).wire.input(case.session, name, "hold")
    for reader in pair:
        await reader.until(lambda state: "<hold>" in reader.place.answer(run))  # noqa: B023 (used at once)
    async with asyncio.TaskGroup() as tasks:
        if crew is not None:
            tasks.create_task(crew.kill_owner_of(case.session))
        sending = tasks.create_task(_at_once(pair, ids, ids, case))
    told = sending.result()
    if case.injects:
        await left.until(lambda _: set(ids) <= set(left.fates))
    if case.mode not in OVERTAKING:
        await right.wire.command("run.cancel", session=case.session, runId=run)
    for reader in pair:
        await reader.settled([name, *told.accepted])
    _check_fates(left, told, ids)
    order = _order(left, ids)
    ends = [left.place.ended.get(f"run_{input_id}") for input_id in order]
    assert left.place.ended[run] == "cancelled"
    if case.refusal is not None:
        assert told.refused == dict.fromkeys(ids, case.refusal)
    elif case.injects:
        assert [left.fates[input_id].run for input_id in ids] == [run, run]
        assert {reply["mode"] for reply in told.accepted.values()} <= {"inject", None}
        assert ends == [None, None]
    elif case.mode in OVERTAKING:
        # The later one finds the run of the earlier one, which it stops, or finds it still waiting.
        assert ends in (["success", "success"], ["cancelled", "success"])
    else:
        assert sorted(reply["position"] for reply in told.accepted.values()) == [1, 2]
        assert {reply["mode"] for reply in told.accepted.values()} == {"enqueue"}
        assert ends == ["success", "success"]
    return order == ids


async def _while_idle(pair: tuple[Reader, Reader], case: Case, name: str, rng: random.Random) -> bool:
    """Nothing runs when both send. Returns whether the first gateway's came first."""
    left, _ = pair
    ids = [f"{name}a", f"{name}b"]
    holds, winner = case.mode == "reject", ""
    told = await _at_once(pair, ids, ["hold" if holds else input_id for input_id in ids], case)
    if holds:
        # Whose run began does not end by itself, so the other one must have been refused.
        (winner,), (loser,) = told.accepted, told.refused
        assert told.refused[loser] == "busy"
        await left.until(lambda _: "<hold>" in left.place.answer(f"run_{winner}"))
        await rng.choice(pair).wire.command("run.cancel", session=case.session, runId=f"run_{winner}")
    for reader in pair:
        await reader.settled(told.accepted)
    _check_fates(left, told, ids)
    if holds:
        return winner == ids[0]
    order = _order(left, ids)
    match case:
        case Case(mode="inject", agent="plain"):
            # The run of the first may have begun when the second came: its gateway refuses it, or else the log does.
            assert set(told.refused.values()) <= {"cannot_inject"}
            assert len(told.refused) <= 1
        case _:
            assert told.refused == {}
    if not told.refused:
        early, late = (left.place.ended.get(f"run_{input_id}") for input_id in order)
        assert early in (("success", "cancelled") if case.mode in OVERTAKING else ("success",))
        assert late == "success" or (case.injects and left.fates[order[1]].run == f"run_{order[0]}")
    return order == ids


def _order(reader: Reader, ids: list[str]) -> list[str]:
    """The inputs in the order of the log, those that were stored."""
    sent = [e["inputId"] for f in reader.place.frames or () for e in f["events"] if e["type"] == "input.sent"]
    return [input_id for input_id in sent if input_id in ids]


def _check_fates(reader: Reader, told: Told, ids: list[str]) -> None:
    """What the log made of each input is what its sender was told."""
    assert sorted([*told.accepted, *told.refused]) == sorted(ids)
    for input_id in ids:
        fate = reader.fates.get(input_id)
        if input_id in told.accepted:
            assert fate is not None
            # A cancel of a run in the middle of its input's application counts against the run, not against the input.
            assert fate.status == "applied", (input_id, fate)
        else:
            assert fate is None or (fate.status, fate.code) == ("refused", told.refused[input_id])


def _check_transcript(reader: Reader, case: Case) -> None:
    """Each input that was applied is in it once, and what was rolled back is marked."""
    said = reader.user_messages()
    applied = {input_id for input_id, fate in reader.fates.items() if fate.status == "applied"}
    assert sorted(said) == sorted(applied)
    finished = [e for f in reader.place.frames or () for e in f["events"] if e["type"] == "RUN_FINISHED"]
    undone = {e["runId"] for e in finished if e["outcome"].get("reason") == "rollback"}
    marked = {m["run"] for m in reader.messages() if m.get("rolledBack")}
    # A run that came to its end just when it was rolled back is undone as well.
    assert undone <= marked
    assert all(reader.place.ended[run] == "success" for run in marked - undone)
    assert bool(undone) == (case.mode == "rollback")
    assert len(finished) == len({e["runId"] for e in finished}) == len(reader.place.ended)
