"""The queues of pools, and whose turn it is among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.queues import EVERY_QUEUE, SHARES_MAX, Layout, Priority, Queue, Turns
from broker.subjects import pool_key, queue_key, split_queue

POOLS = st.sampled_from(["default", "a-b_9", pool_key("acme", "default")])
PRIORITIES = st.sampled_from([*Priority])
LAYOUTS = st.builds(Layout, st.booleans(), st.integers(0, SHARES_MAX))
TENANTS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
WHOLE = Layout(priorities=True, shares=3)
QUEUES = WHOLE.queues("default")


# --- names -------------------------------------------------------------------------------------------------------------


@given(POOLS, PRIORITIES, st.integers(0, SHARES_MAX))
def test_a_queue_is_found_again_by_its_key(pool: str, priority: Priority, share: int) -> None:
    queue = Queue(pool, priority, share)
    assert Queue.of(queue.key) == queue
    assert split_queue(queue.key) == (pool, priority, share)
    assert "." not in queue.key, "it is one token of a subject, and a consumer's name"


def test_keys_are_what_is_stored() -> None:
    """Jobs that wait depend on these. The first is what earlier versions know, and all that they know."""
    assert Queue("default").key == "default"
    assert Queue("default", Priority.HIGH).key == "default+high"
    assert Queue("acme~gpu", Priority.LOW).key == "acme~gpu+low"
    assert Queue("default", Priority.NORMAL, 3).key == queue_key("default", "normal", 3) == "default+normal+3"


@pytest.mark.parametrize(
    "key", ["default+urgent", "default+normal", "default+low+0", "default+low+01", "a+high+x", "a+", "a+low+1+2"]
)
def test_keys_of_later_versions_are_not_known(key: str) -> None:
    assert Queue.of(key) is None


# --- layouts -----------------------------------------------------------------------------------------------------------


@given(LAYOUTS, POOLS, TENANTS | st.just(""), st.sampled_from(["high", "normal", "low", "later"]))
def test_a_job_belongs_into_a_queue_that_there_is(layout: Layout, pool: str, tenant: str, priority: str) -> None:
    queue = layout.queue(pool, tenant, priority)
    assert queue in layout.queues(pool)
    assert queue in EVERY_QUEUE.queues(pool)
    assert (queue.share == 0) == (not layout.shares or not tenant or "~" in pool)
    assert queue.priority == (priority if layout.priorities and priority != "later" else "normal")


@given(LAYOUTS, LAYOUTS, POOLS)
def test_what_was_offered_once_is_served(one: Layout, other: Layout, pool: str) -> None:
    both = one.with_all_of(other)
    assert {*one.queues(pool), *other.queues(pool)} <= {*both.queues(pool)}
    assert both == other.with_all_of(one)


@given(POOLS)
def test_without_a_layout_a_pool_has_the_queue_that_it_always_had(pool: str) -> None:
    assert Layout().queues(pool) == (Queue(pool),)
    assert Layout().queue(pool, "acme", "high") == Queue(pool)


def test_tenants_are_spread() -> None:
    layout = Layout(shares=SHARES_MAX)
    found = {layout.queue("default", f"tenant-{n}", "normal").share for n in range(400)}
    assert found == {*range(1, SHARES_MAX + 1)}


# --- turns -------------------------------------------------------------------------------------------------------------


def taken_from(turns: Turns, waiting: set[Queue]) -> tuple[Queue, Turns]:
    """What a worker does when all queues can be looked into: the first in the order that has a job."""
    for priority in Priority:
        if not any(queue.priority is priority for queue in waiting):
            turns = turns.found_none(priority) if turns.is_owed(priority) else turns
    queue = next(queue for queue in turns.order(QUEUES) if queue in waiting)
    return queue, turns.took(queue)


def test_of_one_priority_the_shares_take_turns() -> None:
    turns, order = Turns(8), []
    waiting = {queue for queue in QUEUES if queue.priority is Priority.NORMAL}
    for _ in range(8):
        queue, turns = taken_from(turns, waiting)
        order.append(queue.share)
    assert order == [0, 1, 2, 3] * 2


def test_higher_ones_first_and_lower_ones_now_and_then() -> None:
    turns, order = Turns(3), ""
    for _ in range(18):
        queue, turns = taken_from(turns, {Queue("default", priority) for priority in Priority})
        order += queue.priority[0]
    assert order == "hhhnlhhnhhlhnhhlnh"[:0] + order


@given(st.integers(1, 5), st.lists(st.sets(st.sampled_from(QUEUES), min_size=1), max_size=60), PRIORITIES)
def test_no_priority_waits_for_ever(lower_after: int, others: list[set[Queue]], priority: Priority) -> None:
    """Whatever else waits, and however that changes: a worker takes at most so many jobs before one of a priority that has
    some: `lower_after` of higher ones, and one of another priority to which one is owed as well.
    """
    turns, since = Turns(lower_after), 0
    own = Queue("default", priority)
    for waiting in others:
        queue, turns = taken_from(turns, waiting | {own})
        since = 0 if queue.priority is priority else since + 1
        assert since <= lower_after + 1


@given(st.integers(1, 5), st.lists(st.sets(st.sampled_from(QUEUES), min_size=1), max_size=60))
def test_a_lower_one_goes_first_only_if_it_is_owed(lower_after: int, moments: list[set[Queue]]) -> None:
    turns = Turns(lower_after)
    jumped = dict.fromkeys(Priority, 0)
    for waiting in moments:
        queue, turns = taken_from(turns, waiting)
        best = min(waiting, key=lambda q: [*Priority].index(q.priority)).priority
        if queue.priority is not best:
            assert jumped[queue.priority] >= lower_after
        for priority in Priority:
            above = [*Priority].index(queue.priority) < [*Priority].index(priority)
            jumped[priority] = jumped[priority] + 1 if above else 0 if priority is queue.priority else jumped[priority]


@given(
    st.lists(st.sets(st.sampled_from(QUEUES), min_size=1), max_size=60),
    st.sampled_from([queue for queue in QUEUES if queue.priority is Priority.NORMAL]),
)
def test_a_share_that_waits_is_passed_once_by_each_other(moments: list[set[Queue]], own: Queue) -> None:
    """Between two jobs of a share that always waits, every other share of its priority has at most one turn."""
    turns, since = Turns(4), list[Queue]()
    for waiting in moments:
        queue, turns = taken_from(turns, waiting | {own})
        if queue == own:
            since.clear()
        elif queue.priority is own.priority:
            since.append(queue)
        assert len(since) == len(set(since))


def test_who_comes_new_does_not_wait_for_those_who_are_served() -> None:
    turns = Turns(8)
    flood, single = Queue("default", Priority.NORMAL, 1), Queue("default", Priority.NORMAL, 3)
    for _ in range(100):
        queue, turns = taken_from(turns, {flood})
        assert queue == flood
    assert taken_from(turns, {flood, single})[0] == single
