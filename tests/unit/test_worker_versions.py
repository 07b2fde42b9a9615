"""Labels of versions, drains, what workers say of themselves, and what a worker is to do by them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from agent_worker.config import WorkerSettings
from agent_worker.metrics import WorkerMetrics
from agent_worker.standing import Order, Standing
from antiphon import findings
from broker.clock import now_ms
from broker.drains import (
    DRAINS_MAX,
    Drain,
    decode_drains,
    drain_of,
    encode_drains,
    with_drain,
    without_drain,
)
from broker.errors import CodecError, ConfigError, InvalidName
from broker.subjects import check_version
from broker.workers import WorkerNotice, WorkerState

NOTICE = WorkerNotice("w-1", "host", "default", "echo", "1.0", WorkerState.TAKING, 3, 1, 16, 5, 6)
DRAIN = Drain("default", "1.0", 1_000, 9_000)


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["1", "1.4.0", "v1.4.0-rc.1+build_7", "2026-11-20", "_", "a" * 128])
def test_labels(label: str) -> None:
    assert check_version(label) == label
    assert WorkerSettings(worker_version=label).worker_version == label


@pytest.mark.parametrize("label", ["-", ".x", "+x", "a b", "a\n", "sha256:00", "ü", "a" * 129])
def test_what_is_no_label(label: str) -> None:
    with pytest.raises(InvalidName):
        check_version(label)
    with pytest.raises(ConfigError, match="ANTIPHON_WORKER_VERSION"):
        WorkerSettings(worker_version=label)


# --- drains ------------------------------------------------------------------------------------------------------------


def test_drains_are_read_as_they_were_written() -> None:
    drains = (DRAIN, Drain("acme~default", "", 5, 0, finish=True))
    assert decode_drains(encode_drains(drains)) == drains
    wire = orjson.loads(encode_drains(drains))
    newer = {**wire, "more": 1, "drains": [{**each, "more": 1} for each in wire["drains"]]}
    assert decode_drains(orjson.dumps(newer)) == drains


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"drains":1}', b'{"drains":[1]}', b'{"drains":[{"pool":"p","version":"v"}]}']
)
def test_what_says_of_no_drains(body: bytes) -> None:
    with pytest.raises(CodecError):
        decode_drains(body)


def test_a_drain_is_of_one_version_in_one_pool_and_ends_with_its_time() -> None:
    assert drain_of([DRAIN], "default", "1.0", 8_999) is DRAIN
    assert drain_of([DRAIN], "default", "1.0", 9_000) is None
    assert drain_of([DRAIN], "default", "", 2_000) is None
    assert drain_of([DRAIN], "other", "1.0", 2_000) is None
    lasting = Drain("default", "1.0", 1_000)
    assert drain_of([lasting], "default", "1.0", 2**52) is lasting


def test_a_new_drain_takes_the_place_of_the_one_before_and_what_is_over_goes() -> None:
    other, over = Drain("default", "2.0", 1), Drain("default", "0.9", 1, 2)
    again = Drain("default", "1.0", 5_000, 0, finish=True)
    assert with_drain((DRAIN, other, over), again) == (other, again)
    assert without_drain((DRAIN, other, over), "default", "1.0", 5_000) == (other,)


def test_there_are_so_many_drains_and_no_more() -> None:
    full = tuple(Drain("default", f"v{i}", 1) for i in range(DRAINS_MAX))
    with pytest.raises(ConfigError, match="undrain"):
        with_drain(full, DRAIN)
    assert len(with_drain(full, Drain("default", "v7", 2))) == DRAINS_MAX


# --- what a worker says ------------------------------------------------------------------------------------------------


def test_a_notice_is_read_as_it_was_written() -> None:
    assert WorkerNotice.decode(NOTICE.encode()) == NOTICE
    assert WorkerNotice.decode(orjson.dumps({**orjson.loads(NOTICE.encode()), "more": 1})) == NOTICE


@pytest.mark.parametrize("wrong", [{"state": "asleep"}, {"lanes": -1}, {"version": None}, {"worker": 1}])
def test_what_is_no_notice(wrong: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        WorkerNotice.decode(orjson.dumps({**orjson.loads(NOTICE.encode()), **wrong}))
    with pytest.raises(CodecError):
        WorkerNotice.decode(b"[")


# --- what it is to do --------------------------------------------------------------------------------------------------


def standing(version: str = "1.0") -> tuple[Standing, WorkerMetrics]:
    metrics = WorkerMetrics()
    return Standing(WorkerSettings(worker_version=version, concurrency=4), metrics), metrics


def counted(metrics: WorkerMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"antiphon_worker_{name}")


def test_a_worker_does_as_the_drains_of_its_version_say() -> None:
    mine, metrics = standing()
    assert (mine.order, mine.state(0)) == (Order.TAKE, WorkerState.TAKING)
    for drains, order in (
        ([Drain("default", "2.0", 1), Drain("other", "1.0", 1), Drain("default", "", 1)], Order.TAKE),
        ([Drain("default", "1.0", 1, 2)], Order.TAKE),
        ([Drain("default", "1.0", 1, now_ms() + 60_000)], Order.DRAIN),
        ([Drain("default", "1.0", 1, finish=True)], Order.FINISH),
        ([], Order.TAKE),
    ):
        mine.told(drains)
        assert mine.order is order
        drained = order is not Order.TAKE
        assert (counted(metrics, "drained"), counted(metrics, "capacity")) == (drained, 0 if drained else 4)


def test_the_state_that_is_told() -> None:
    mine, _ = standing()
    mine.told([Drain("default", "1.0", 1)])
    assert (mine.state(2), mine.state(0)) == (WorkerState.DRAINING, WorkerState.DRAINED)
    mine.told([Drain("default", "1.0", 1, finish=True)])
    assert (mine.state(2), mine.state(0)) == (WorkerState.FINISHING, WorkerState.DRAINED)
    mine.leave()
    assert mine.state(2) is WorkerState.LEAVING


def test_who_is_to_leave_does_whatever_the_drains_say() -> None:
    mine, metrics = standing()
    mine.leave()
    mine.told([Drain("default", "1.0", 1, finish=True)])
    mine.told([])
    assert mine.order is Order.LEAVE
    assert counted(metrics, "draining") == 1


async def test_waiting_for_what_is_to_be_done() -> None:
    mine, _ = standing("")
    async with asyncio.TaskGroup() as tasks:
        known, other = tasks.create_task(mine.known()), tasks.create_task(mine.other_than(Order.TAKE))
        await asyncio.sleep(0)
        assert not known.done()
        mine.told([])
        await known
        assert not other.done()
        mine.told([Drain("default", "", 1)])


async def test_who_is_to_leave_before_the_drains_are_known_need_not_wait() -> None:
    mine, _ = standing()
    mine.leave()
    await mine.known()


# --- what the doctor makes of it ---------------------------------------------------------------------------------------


def notice(version: str, state: WorkerState, worker: str = "w-1") -> WorkerNotice:
    return WorkerNotice(worker, "host", "default", "echo", version, state, 0, 0, 16, 5, 6)


def consumer(pending: int, asking: int) -> dict[str, Any]:
    return {"name": "pool-default", "num_pending": pending, "num_waiting": asking, "num_ack_pending": 0}


@pytest.mark.parametrize(
    ("pending", "asking", "states", "status"),
    [
        (1, 0, ["drained", "finishing"], "fail"),
        (0, 0, ["drained"], "note"),
        (1, 0, ["drained", "leaving"], "fail"),
        (1, 0, ["drained", "taking"], None),
        (1, 1, ["drained"], None),
        (1, 0, [], None),
        (1, 0, ["leaving"], None),
    ],
)
def test_a_pool_whose_workers_are_all_drained(pending: int, asking: int, states: list[str], status: str | None) -> None:
    notices = [notice("1.0", WorkerState(state), f"w-{n}") for n, state in enumerate(states)]
    found = [each.status for each in findings.only_drained(consumer(pending, asking), notices)]
    assert found == ([] if status is None else [status])


def test_a_drain_that_may_have_been_forgotten() -> None:
    assert findings.drain(DRAIN, []).mend.startswith("none is there")
    assert findings.drain(DRAIN, [notice("1.0", WorkerState.DRAINED)]).mend.startswith("they have nothing left")
    busy = [notice("1.0", WorkerState.DRAINED), notice("1.0", WorkerState.DRAINING, "w-2")]
    assert findings.drain(DRAIN, busy).status == "ok"


def test_workers_by_version() -> None:
    notices = [
        notice("1.0", WorkerState.DRAINED),
        notice("", WorkerState.TAKING, "w-2"),
        notice("1.0", WorkerState.DRAINED, "w-3"),
    ]
    (found,) = findings.workers(notices)
    assert found.what == "workers of pool default: 1 of version - taking, 2 of version 1.0 drained"
