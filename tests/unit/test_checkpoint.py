"""Checkpoints: when one is due, and what is made of one that cannot be read. See also test_session_properties.py."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.checkpoint import (
    KEEP_MESSAGES,
    MAX_BYTES,
    PAGE_MESSAGES,
    START,
    VERSION,
    Checkpoint,
    Page,
    advance,
    checkpoint_of,
    decode_checkpoint,
    encode_checkpoint,
    page_at,
    state_at,
)
from broker.events import Participant
from broker.session_config import RoleLimits, SessionConfig
from broker.state import MAX_INPUTS, Ended, InputFate, Lane, Remembered, Seen, SessionState
from broker.tail import StoredEntry
from tests.unit.strategies import json_values

USER, AGENT = Participant("user", "user-1", "A user"), Participant("agent", "w1")


def quiet(as_of: int, messages: int, fence: int = 1) -> SessionState:
    return SessionState(as_of=as_of, messages=messages, lanes={"main": Lane(fence=fence, owner=AGENT, last_n=as_of)})


FULL = Checkpoint(
    replace(
        quiet(90, 60),
        seen=Seen(frozenset({1, 2**64 - 1})),
        fates=(
            InputFate("i1", 5, "applied", run="run_i1"),
            InputFate("i2", 6, "cancelled", None, USER),
            InputFate("i3", 7, "failed", "x"),
        ),
        ended=(Ended("run_i1", "success"), Ended("call_1", "failed", "deadline")),
        remembered={"tool:delete": Remembered("allow_always", Participant("user", "user-2", None, ("lead",)), 33)},
        config=SessionConfig("reject", "latest", 3, "cancel", "stop", 0, "gpu", {"guest": RoleLimits((), 0, False)}),
        title="Trip",
        metadata={"ticket": 7},
        created_by=USER,
        created_seq=2,
        closed=True,
    ),
    (Page(40, 25, {"main": 1}), Page(90, 60, {"main": 1, "other": 50})),
)


def test_a_checkpoint_survives_a_round_trip() -> None:
    assert decode_checkpoint(encode_checkpoint(FULL)) == FULL
    assert decode_checkpoint(encode_checkpoint(START)) == START


def test_a_session_of_the_most_inputs_still_fits() -> None:
    seen = Seen(frozenset(range(2**63, 2**63 + MAX_INPUTS)))
    pages = tuple(Page(10**12 + n, n * PAGE_MESSAGES, {"main": 10**12}) for n in range(2 * MAX_INPUTS // PAGE_MESSAGES))
    assert len(encode_checkpoint(replace(FULL, state=replace(FULL.state, seen=seen), pages=pages))) < MAX_BYTES


def test_no_checkpoint_is_the_start() -> None:
    assert decode_checkpoint(None) == START


@given(st.binary(max_size=30) | json_values.map(orjson.dumps))
def test_bytes_that_are_no_checkpoint_are_the_start(body: bytes) -> None:
    assert decode_checkpoint(body) == START


@pytest.mark.parametrize(
    "field",
    ["version", "asOf", "messages", "lanes", "seen", "fates", "ended", "scheduled", "session", "pages"],
)
@pytest.mark.parametrize("value", [None, "x", [1]])
def test_a_checkpoint_with_a_wrong_field_is_the_start(field: str, value: object) -> None:
    wire = orjson.loads(encode_checkpoint(FULL))
    assert decode_checkpoint(orjson.dumps(wire | {field: value})) == START
    del wire[field]
    assert decode_checkpoint(orjson.dumps(wire)) == START


def test_another_version_is_not_read() -> None:
    wire = orjson.loads(encode_checkpoint(FULL))
    assert decode_checkpoint(orjson.dumps(wire | {"version": VERSION - 1})) == START
    assert decode_checkpoint(orjson.dumps(wire | {"version": VERSION + 1})) == START


# --- when one is due -------------------------------------------------------------------------------------------------


def test_it_stays_behind_the_end() -> None:
    """So that who joins gets some messages."""
    places = [quiet(10, 1), quiet(20, 3)]
    assert advance(START, places, quiet(99, KEEP_MESSAGES)) is None
    early = advance(START, places, quiet(99, KEEP_MESSAGES + 1))
    assert early == Checkpoint(places[0])
    late = advance(START, places, quiet(99, KEEP_MESSAGES + 3))
    assert late == Checkpoint(places[1])


def test_it_never_goes_back() -> None:
    last = Checkpoint(quiet(50, 10))
    assert advance(last, [quiet(20, 2), quiet(50, 10)], quiet(999, 900)) is None
    assert advance(last, [], quiet(999, 900)) is None


def test_pages_have_a_distance() -> None:
    places = [quiet(10 * n, 20 * n, fence=n) for n in range(1, 11)]
    found = advance(START, places, quiet(999, 400))
    assert found is not None
    assert [page.messages for page in found.pages] == [60, 120, 180]
    assert found.pages[0] == Page(30, 60, {"main": 3})
    further = advance(found, [quiet(110, 229), quiet(120, 230)], quiet(999, 400))
    assert further == Checkpoint(quiet(120, 230), (*found.pages, Page(120, 230, {"main": 1})))


def test_a_page_is_enough_to_fold_messages_from_there() -> None:
    page = page_at(quiet(90, 60, fence=7))
    assert page == Page(90, 60, {"main": 7})
    assert state_at(page) == SessionState(as_of=90, messages=60, lanes={"main": Lane(fence=7)})


def test_one_that_stands_behind_its_own_place_is_none() -> None:
    """Readers would wait for entries that nobody has written."""
    body = encode_checkpoint(Checkpoint(SessionState(as_of=7)))
    assert checkpoint_of(None) is START
    assert checkpoint_of(StoredEntry(8, "c.00.s", body)).state.as_of == 7
    for seq in (1, 6, 7):
        assert checkpoint_of(StoredEntry(seq, "c.00.s", body)) is START


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b'"metadata":{}', b'"metadata":7'),
        (b'"title":null', b'"title":[]'),
        (b'"asOf":7', b'"asOf":-1'),
        (b'"asOf":7', b'"asOf":7.0'),
        (b'"asOf":7', b'"asOf":1e30'),
        (b'"closed":false', b'"closed":0'),
        (b'"lanes":{}', b'"lanes":{"main":{"fence":1,"owner":null,"n":0,"can":[1],"pool":null}}'),
        (b'"fates":[]', b'"fates":[{"inputId":1,"seq":1,"status":"x","code":null,"by":null,"run":null}]'),
        (b'"ended":[]', b'"ended":[["a",1,null]]'),
        (b'"pages":[]', b'"pages":[[1,0,{"main":"x"},{},0,false]]'),
        (b'"metadata":{}', b'"metadata":{"a":' + b"[" * 250 + b"]" * 250 + b"}"),
    ],
)
def test_one_with_a_part_that_is_something_else_is_none(part: bytes, other: bytes) -> None:
    body = encode_checkpoint(Checkpoint(SessionState(as_of=7)))
    assert part in body
    assert decode_checkpoint(body).state.as_of == 7
    assert decode_checkpoint(body.replace(part, other)) is START
