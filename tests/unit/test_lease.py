"""Write ids, and what the receiver of a job does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.lease import Claim, Settled, WriteId, has_work, judge_job, parse_write_id
from broker.state import Lane, QueuedInput, Run, SessionState

WAITING = (QueuedInput("i1", 5, 1, None, "x"),)


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_a_write_id_survives_a_round_trip(fence: int, n: int) -> None:
    assert parse_write_id(str(WriteId(fence, n))) == WriteId(fence, n)


@given(st.text())
def test_anything_else_is_no_write_id(value: str) -> None:
    parsed = parse_write_id(value)
    assert parsed is None or value.count("-") == 1


@pytest.mark.parametrize(
    "value", ["", "1", "1-", "-1", "1-1-1", "1-1\n", "1 -1", "+1-1", "1-x", "٣-1", "1" * 19 + "-1"]
)
def test_what_looks_like_a_write_id_and_is_none(value: str) -> None:
    assert parse_write_id(value) is None


@pytest.mark.parametrize(
    ("state", "lane", "verdict"),
    [
        (SessionState(), "main", Settled()),
        (SessionState(inputs=WAITING), "main", Claim(0)),
        (SessionState(inputs=WAITING, lanes={"main": Lane(fence=7)}), "main", Claim(7)),
        (SessionState(inputs=WAITING), "other", Settled()),
        (SessionState(lanes={"main": Lane(fence=7)}), "main", Settled()),
        (SessionState(lanes={"a": Lane(7, run="r")}, runs={"r": Run("r", "a", "i", 8)}), "a", Claim(7)),
        (SessionState(lanes={"a": Lane(7, run="r")}, runs={"r": Run("r", "a", "i", 8)}), "main", Settled()),
    ],
)
def test_a_job_is_worth_what_the_log_says(state: SessionState, lane: str, verdict: Claim | Settled) -> None:
    assert judge_job(state, lane) == verdict
    assert has_work(state, lane) == isinstance(verdict, Claim)
