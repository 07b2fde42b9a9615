"""What the owner of a lane does next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_worker.assignment import EndCancelled, GiveUp, Release, Start, TakeOver, next_action
from broker.session_config import SessionConfig
from broker.state import Cancel, Lane, QueuedInput, Run, SessionState

FIRST, SECOND = (QueuedInput(id_, seq, 1, None, "x") for seq, id_ in enumerate(("i1", "i2"), 5))
RUN = Run("run_i0", "main", "i0", 3)


def state(run: Run | None = None, *inputs: QueuedInput) -> SessionState:
    lanes = {"main": Lane(fence=2, run=None if run is None else run.run_id)}
    return SessionState(lanes=lanes, runs={} if run is None else {run.run_id: run}, inputs=inputs)


def test_nothing_to_do_ends_it() -> None:
    assert next_action(state(), "main", 3) == Release()
    assert next_action(SessionState(), "main", 3) == Release()


def test_the_first_in_the_queue_is_next() -> None:
    assert next_action(state(None, FIRST, SECOND), "main", 3) == Start((FIRST,))


@pytest.mark.parametrize(
    ("modes", "lane", "together"),
    [
        (["enqueue", "enqueue", "enqueue"], "main", 3),
        (["enqueue", "inject", "enqueue"], "main", 1),
        (["interrupt", "enqueue"], "main", 1),
        (["rollback", "enqueue"], "main", 1),
        (["inject", "enqueue"], "main", 1),
        (["enqueue", "enqueue"], "helper", 1),
    ],
)
def test_what_merges_into_one_run(modes: list[str], lane: str, together: int) -> None:
    queue = tuple(QueuedInput(f"i{n}", n, 1, None, "x", mode, lane) for n, mode in enumerate(modes))
    merging = SessionState(inputs=queue, config=SessionConfig(coalesce="merge"))
    assert next_action(merging, lane, 3) == Start(queue[:together])
    for coalesce in ("none", "latest"):
        one = replace(merging, config=SessionConfig(coalesce=coalesce))
        assert next_action(one, lane, 3) == Start(queue[:1])


def test_only_the_main_lane_serves_the_queue() -> None:
    assert next_action(state(None, FIRST), "other", 3) == Release()


@pytest.mark.parametrize(("attempt", "lost"), [(1, 1), (2, 2), (9, 0), (9, 2)])
def test_a_run_that_was_begun_comes_before_the_queue(attempt: int, lost: int) -> None:
    run = replace(RUN, attempt=attempt, lost=lost)
    assert next_action(state(run, FIRST), "main", 3) == TakeOver(run, attempt + 1)


@pytest.mark.parametrize("lost", [3, 4])
def test_a_run_that_has_lost_its_workers_is_given_up(lost: int) -> None:
    run = replace(RUN, attempt=lost, lost=lost)
    assert next_action(state(run, FIRST), "main", 3) == GiveUp(run)


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_run_that_was_cancelled_is_not_begun_again(attempt: int) -> None:
    run = replace(RUN, attempt=attempt, cancel=Cancel("immediate", None))
    assert next_action(state(run, FIRST), "main", 3) == EndCancelled(run)


def test_anothers_lanes_run_is_not_ours() -> None:
    assert next_action(state(RUN), "other", 3) == Release()
