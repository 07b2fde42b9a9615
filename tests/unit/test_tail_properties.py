"""Replay + live = log, whatever is lost, doubled, reordered or disturbed, and whenever."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.tail import MAX_BUFFERED, RECENT, Tail
from tests.unit.tail_world import SUBJECTS, World

Op = tuple[Any, ...]
"""The name of a method of `World`, and its arguments."""

subjects = st.sampled_from(SUBJECTS)
index = st.integers(0, 7)
writes = st.tuples(st.just("write"), subjects, st.integers(0, 2))
arrivals = st.tuples(st.just("arrive"), index)
arrivals_in_order = st.just(("arrive", 0))
says = st.tuples(st.just("say"), subjects)
mumbles = st.tuples(st.just("mumble"), subjects)
losses = st.tuples(st.just("lose"), index)
repeats = st.tuples(st.just("arrive_again"), index)
disturbances = st.just(("disturb",))
requests = st.tuples(st.just("ask"), st.integers(0, 4), st.integers(1, 4))
requests_to_deposed = st.tuples(st.just("ask_deposed"), st.integers(0, 4))
requests_to_replicas = st.tuples(st.just("ask_early"), st.integers(0, 4), st.integers(1, 4))
answers = st.just(("answer",))
rests = st.just(("come_to_rest",))
expiries = st.tuples(st.just("expire"), st.integers(1, 3))

LOSSLESS_EVENTS = (writes, arrivals_in_order, disturbances, requests, requests_to_replicas, answers, rests)
proofs = st.just(("prove",))
EVENTS = (*LOSSLESS_EVENTS, says, mumbles, arrivals, losses, repeats, requests_to_deposed)


@st.composite
def histories(draw: st.DrawFn, kinds: tuple[st.SearchStrategy[Op], ...] = EVENTS) -> list[Op]:
    """What happens after the join. Each draws from a few kinds of events only, so that the rare ones meet."""
    few = draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=6, unique_by=id))
    return draw(st.lists(st.one_of(few), max_size=40))


@st.composite
def joined(draw: st.DrawFn, recent: int = RECENT, max_buffered: int = MAX_BUFFERED) -> World:
    """A world whose reader has just joined, at any place of a log that may hold something."""
    world = World()
    for subject, skip in draw(st.lists(st.tuples(st.sampled_from(SUBJECTS), st.integers(0, 2)), max_size=10)):
        world.write(subject, skip)
    after = draw(st.sampled_from([0, *(e.seq for e in world.log)]))
    world.join(Tail(after, recent=recent, max_buffered=max_buffered), after)
    if draw(st.booleans()):
        world.come_to_rest()
    return world


def play(world: World, ops: list[Op]) -> None:
    for method, *arguments in ops:
        getattr(world, method)(*arguments)


@given(joined(), histories())
def test_the_check_after_a_disturbance_finds_every_loss(world: World, ops: list[Op]) -> None:
    play(world, ops)
    world.disturb()
    world.come_to_rest()
    assert world.delivered == world.expected


@given(joined(), histories((says, mumbles, arrivals, losses, disturbances, requests, answers, rests, proofs)))
def test_what_is_proven_is_whole(world: World, ops: list[Op]) -> None:
    play(world, ops)
    world.come_to_rest()
    world.prove()
    world.come_to_rest()
    assert world.delivered == [e for e in world.expected if e.seq <= max((d.seq for d in world.delivered), default=0)]


@given(joined(), histories())
def test_the_next_message_of_each_subject_finds_every_loss(world: World, ops: list[Op]) -> None:
    play(world, ops)
    world.in_flight.clear()
    for subject in SUBJECTS:
        world.write(subject)
        world.arrive(0)
    world.come_to_rest()
    assert world.delivered == world.expected


@given(joined(max_buffered=3), histories())
def test_a_full_buffer_loses_nothing(world: World, ops: list[Op]) -> None:
    play(world, ops)
    world.disturb()
    world.come_to_rest()
    assert world.delivered == world.expected


@given(joined(recent=3, max_buffered=3), histories(LOSSLESS_EVENTS))
def test_without_loss_nothing_is_taken_back(world: World, ops: list[Op]) -> None:
    play(world, ops)
    while world.in_flight:
        world.arrive(0)
    world.come_to_rest()
    assert world.delivered == world.expected
    assert world.rewinds == []
    assert world.deliveries == len(world.expected)


@given(joined(max_buffered=3), histories((*EVENTS, expiries, expiries)))
def test_what_ages_out_is_not_waited_for(world: World, ops: list[Op]) -> None:
    play(world, ops)
    world.disturb()
    world.come_to_rest()
    assert [e for e in world.delivered if e in world.log] == world.expected


@given(joined(recent=3, max_buffered=3), histories())
def test_only_what_has_left_the_window_stays_lost(world: World, ops: list[Op]) -> None:
    play(world, ops)
    world.disturb()
    world.come_to_rest()
    for entry in world.missing:
        assert sum(delivered.seq > entry.seq for delivered in world.delivered) >= 3


OTHERS = st.sampled_from(SUBJECTS[1:])
waits: st.SearchStrategy[list[Op]] = st.lists(
    st.one_of(requests, requests_to_replicas, answers, disturbances), max_size=10
)
elsewhere: st.SearchStrategy[list[Op]] = st.lists(
    st.one_of(
        st.tuples(st.just("say"), OTHERS), st.tuples(st.just("mumble"), OTHERS), requests, answers, rests, disturbances
    ),
    max_size=40,
)


@given(joined(recent=3), st.integers(1, 5), elsewhere, waits)
def test_the_next_message_finds_a_loss_of_any_age(world: World, lost: int, ops: list[Op], then: list[Op]) -> None:
    world.come_to_rest()
    for _ in range(lost):
        world.mumble(SUBJECTS[0])
    play(world, ops)
    world.say(SUBJECTS[0])
    play(world, then)
    world.come_to_rest()
    assert SUBJECTS[0] not in {entry.subject for entry in world.missing}
