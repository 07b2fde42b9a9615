"""One agent asks another: a child run, in a lane of its own, of the same session."""

from __future__ import annotations

import re

from agent_worker.errors import AskFailed
from agent_worker.scope import LaneScope
from broker.events import RunDropped, RunRequested
from broker.state import SessionState
from broker.subjects import MAIN_LANE, run_id_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
DEPTH_MAX = 8
"""Runs above a run that is asked for."""
FAN_OUT_MAX = 16
"""Runs that one run may have asked for and that have not ended."""


def check(state: SessionState, run_id: str, agent: str, asking: str) -> None:
    """Raises AskFailed: ask_cycle (the agent is the asker, or one that waits for it), ask_depth, ask_fan_out."""
    if not _NAME.fullmatch(agent):
        raise AskFailed(agent, "bad_name")
    waiting = {asking}
    run, depth = state.runs.get(run_id), 0
    while run is not None:
        depth += 1
        owner = state.lane(run.lane).owner
        waiting |= {name for name in (run.agent, None if owner is None else owner.name) if name is not None}
        run = state.runs.get(run.parent or "")
    if agent in waiting:
        raise AskFailed(agent, "ask_cycle")
    if depth > DEPTH_MAX:
        raise AskFailed(agent, "ask_depth")
    live = sum(r.parent == run_id for r in state.runs.values()) + sum(i.parent == run_id for i in state.inputs)
    if live >= FAN_OUT_MAX:
        raise AskFailed(agent, "ask_fan_out")


def free_lane(state: SessionState, agent: str) -> str:
    """A lane of the agent's where nothing runs and nothing waits."""
    name, n = agent, 1
    if name == MAIN_LANE:
        name, n = f"{agent}-2", 2
    while state.lane(name).run is not None or state.queue(name):
        n += 1
        name = f"{agent}-{n}"
    return name


async def request(scope: LaneScope, run_id: str, input_id: str, agent: str, content: str, *, detached: bool) -> None:
    """Queues the child's input and offers its job, unless an earlier attempt of the run has. Raises AskFailed, LogError."""
    if input_id not in scope.state.seen:
        check(scope.state, run_id, agent, scope.services.agent.name)
        lane = free_lane(scope.state, agent)
        scope.record(RunRequested(input_id, run_id, lane, agent, agent, content, detached))
        await scope.stored()
    fate = scope.state.fate(input_id)
    if fate is not None and fate.status == "refused":
        raise AskFailed(agent, "refused")
    queued = scope.state.queued(input_id)
    if queued is not None:
        await scope.services.jobs.offer(scope.subjects, queued.lane, agent, scope.state.config.priority)


async def answer(scope: LaneScope, input_id: str, agent: str, at_ms: int) -> str:
    """Waits for the child run's end, and returns what it said. Raises AskFailed, LogError."""
    end = await scope.until(lambda state: _end(state, input_id), at_ms)
    if end is None:
        give_up(scope, input_id)
        await scope.stored()
        raise AskFailed(agent, "timeout")
    if end != "success":
        raise AskFailed(agent, end)
    run_id = run_id_of(input_id)
    messages = scope.loaded.transcript.messages
    return "".join(m.text for m in messages if m.run == run_id and m.role == "assistant")


def _end(state: SessionState, input_id: str) -> str | None:
    """How the child ended: success, error, cancelled, or refused; None while it has not."""
    run_id = run_id_of(input_id)
    if run_id in state.runs or state.queued(input_id) is not None:
        return None
    ended, fate = state.end_of(run_id), state.fate(input_id)
    if ended is not None:
        return ended.status
    return "error" if fate is None or fate.status == "applied" else fate.status


def give_up(scope: LaneScope, input_id: str) -> None:
    """Nobody waits for the answer any more: whoever works on it is stopped. Raises LogError."""
    scope.writer.record(RunDropped(input_id))
