"""Who is there: rosters, boards, peers and announcements (`broker.presence`)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import CodecError
from broker.presence import (
    MAX_DEVICES,
    MAX_TOOLS_BYTES,
    MAX_USER_DEVICES,
    STATES,
    Announcement,
    Board,
    Member,
    Peers,
    Present,
    Roster,
    decode,
    encode,
)
from broker.tools import ToolDeclaration
from gateway import protocol

NATS_MAX_PAYLOAD = 1 << 20

PICK = ToolDeclaration("pick_file", "Lets the user choose", {"type": "object"}, {"type": "string"}, True, True)
OPEN = ToolDeclaration("open_page")

members = st.builds(
    Member,
    user=st.sampled_from(["u1", "u2", "u3"]),
    device=st.sampled_from(["d1", "d2"]),
    name=st.sampled_from([None, "A user", "Another name"]),
    roles=st.sampled_from([(), ("support",), ("lead", "support")]),
    state=st.sampled_from(STATES),
    tools=st.sampled_from([(), (PICK,), (OPEN, PICK)]),
    watching=st.booleans(),
    here=st.booleans(),
)
announcements = st.builds(
    Announcement,
    gateway=st.sampled_from(["g1", "g2", "g3"]),
    members=st.lists(members, max_size=5, unique_by=lambda m: (m.user, m.device)).map(tuple),
    more=st.integers(0, 3),
)


def announced(gateway: str, *who: Member, grace_s: float = 10.0) -> Announcement:
    return Announcement(gateway, who, grace_s=grace_s)


def one(board: Board) -> Present:
    (present,) = board.participants
    return present


# --- the board -------------------------------------------------------------------------------------------------------


def test_a_user_on_two_devices_and_two_gateways_counts_once() -> None:
    board = Board()
    assert board.take(announced("g1", Member("u1", "laptop", state="away"), Member("u1", "phone")))
    board.take(announced("g2", Member("u1", "phone", state="idle", tools=(PICK,))))
    present = one(board)
    assert [(d.device, d.state, d.tools) for d in present.devices] == [
        ("laptop", "away", ()),
        ("phone", "active", (PICK,)),
    ]
    assert (present.kind, present.id, present.state, present.watching) == ("user", "u1", "active", True)


@pytest.mark.parametrize("state", STATES)
def test_the_liveliest_state_counts(state: str) -> None:
    board = Board()
    board.take(announced("g1", *(Member("u1", f"d-{s}", state=s) for s in STATES[STATES.index(state) :])))
    assert one(board).state == state


def test_who_does_not_watch_is_known_and_not_shown() -> None:
    board = Board()
    bot = Member("bot", "b1", state="typing", tools=(PICK,), watching=False)
    board.take(announced("g1", bot, Member("u1", "d1", state="away"), Member("u1", "export", watching=False)))
    by_id = {present.id: present for present in board.participants}
    assert not by_id["bot"].watching
    assert by_id["bot"].devices[0].tools == (PICK,)
    assert by_id["u1"].state == "away"
    frame = protocol.presence("demo", board.participants, board.more)
    assert b"bot" not in frame
    assert b"export" not in frame
    assert b"more" not in frame


def test_a_device_that_has_left_one_gateway_and_is_at_another_is_as_it_is_there() -> None:
    board = Board()
    board.take(announced("g1", Member("u1", "d1", state="idle", tools=(PICK,)).left()))
    assert board.take(announced("g2", Member("u1", "d1", state="away", watching=False)))
    (device,) = one(board).devices
    assert (device.state, device.tools, device.watching, device.here) == ("away", (), False, True)


@given(st.lists(announcements, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_gateways_is_of_no_matter(said: list[Announcement], chance: random.Random) -> None:
    latest = list({announcement.gateway: announcement for announcement in said}.values())
    one_order, another = Board(), Board()
    for announcement in said:
        one_order.take(announcement)
    chance.shuffle(latest)
    for announcement in latest:
        another.take(announcement)
    assert one_order.participants == another.participants
    assert one_order.more == another.more
    assert one_order.gateways == another.gateways


@given(st.lists(announcements, max_size=8))
def test_each_user_and_each_device_is_there_once_and_changes_are_told(said: list[Announcement]) -> None:
    board = Board()
    for announcement in said:
        before = board.participants, board.more
        assert board.take(announcement) == (before != (board.participants, board.more))
    latest = {announcement.gateway: announcement for announcement in said}
    expected = {(m.user, m.device) for announcement in latest.values() for m in announcement.members}
    listed = [(present.id, device.device) for present in board.participants for device in present.devices]
    assert sorted(listed) == sorted(expected)
    assert len({present.id for present in board.participants}) == len(board.participants)


def test_the_people_of_a_lost_gateway_stay_for_the_grace() -> None:
    board = Board()
    board.take(announced("g1", Member("u1", "d1", state="idle"), grace_s=10))
    board.take(announced("g2", Member("u2", "d2")))
    assert board.lose("g1", 100.0)  # the device is not here any more
    assert [present.id for present in board.participants] == ["u1", "u2"]
    assert one_of(board, "u1").watching
    assert not board.lose("g1", 105.0)  # a second time is no new grace
    assert board.due == 110.0
    assert not board.expire(109.9)
    assert board.expire(110.0)
    assert [present.id for present in board.participants] == ["u2"]
    assert board.due is None


def test_a_lost_gateway_that_comes_back_changes_nothing_more() -> None:
    board = Board()
    here = announced("g1", Member("u1", "d1"))
    board.take(here)
    before = board.participants
    board.lose("g1", 0.0)
    board.take(here)
    assert board.participants == before
    assert not board.expire(1000.0)
    assert board.gateways == {"g1"}


def test_who_reconnects_elsewhere_in_the_grace_was_never_gone() -> None:
    board = Board()
    board.take(announced("g1", Member("u1", "d1")))
    before = board.participants
    board.lose("g1", 0.0)
    board.take(announced("g2", Member("u1", "d1")))
    assert board.participants == before
    assert not board.expire(10.0)
    assert board.participants == before


def test_nobody_types_at_a_lost_gateway() -> None:
    board = Board()
    board.take(announced("g1", Member("u1", "d1", state="typing")))
    board.lose("g1", 0.0)
    assert one(board).state == "active"


def test_losing_a_gateway_that_nobody_is_at_is_nothing() -> None:
    board = Board()
    assert not board.lose("g1", 0.0)
    board.take(announced("g1", Member("u1", "d1")))
    board.take(announced("g1"))
    assert board.participants == ()
    assert not board.lose("g1", 0.0)
    assert board.due is None


def one_of(board: Board, user: str) -> Present:
    return next(present for present in board.participants if present.id == user)


# --- the roster ------------------------------------------------------------------------------------------------------


def test_a_reload_is_no_change() -> None:
    roster, board = Roster(10.0), Board()
    roster.put("a", Member("u1", "d1"))
    board.take(announced("g1", *roster.members(0.0)[0]))
    shown = protocol.presence("demo", board.participants, 0)
    roster.leave("a", 1.0)
    board.take(announced("g1", *roster.members(1.0)[0]))
    assert protocol.presence("demo", board.participants, 0) == shown
    assert not one(board).devices[0].here
    roster.put("b", Member("u1", "d1"))
    board.take(announced("g1", *roster.members(2.0)[0]))
    assert protocol.presence("demo", board.participants, 0) == shown
    assert roster.due is None


def test_who_has_left_is_listed_for_the_grace_and_then_gone() -> None:
    roster = Roster(10.0)
    roster.put("a", Member("u1", "d1", state="typing"))
    roster.leave("a", 1.0)
    roster.leave("a", 5.0)
    assert roster.due == 11.0
    assert roster.members(10.9) == ((Member("u1", "d1", state="active", here=False),), 0)
    assert not roster.empty
    assert roster.members(11.0) == ((), 0)
    assert roster.empty


def test_a_device_on_two_connections_is_one_and_stays_when_one_of_them_ends() -> None:
    roster = Roster(10.0)
    roster.put("a", Member("u1", "d1", state="away", tools=(PICK,), watching=False))
    roster.put("b", Member("u1", "d1", state="idle", tools=(OPEN,)))
    ((member,), more) = roster.members(0.0)
    tools = sorted(tool.name for tool in member.tools)
    assert (member.state, tools, member.watching, more) == ("idle", ["open_page", "pick_file"], True, 0)
    roster.leave("b", 1.0)
    assert roster.members(2.0)[0] == (Member("u1", "d1", state="away", tools=(PICK,), watching=False),)


def test_a_crowd_is_counted_beyond_the_limits_and_tools_come_first() -> None:
    roster = Roster(10.0)
    for i in range(MAX_DEVICES + 5):
        roster.put(i, Member(f"u{i:05}", "d"))
    roster.put("tools", Member("zzz", "d", tools=(PICK,)))
    listed, more = roster.members(0.0)
    assert (len(listed), more) == (MAX_DEVICES, 6)
    assert listed[0].user == "zzz"
    machine = Roster(10.0)
    for i in range(MAX_USER_DEVICES + 3):
        machine.put(i, Member("u", f"d{i:03}", state="away" if i < 10 else "active"))
    listed, more = machine.members(0.0)
    assert (len(listed), more) == (MAX_USER_DEVICES, 3)
    assert sum(member.state == "away" for member in listed) == 7


def test_devices_that_come_and_go_are_not_kept_without_limit() -> None:
    roster = Roster(1e9)
    for i in range(3 * MAX_DEVICES):
        roster.put(i, Member(f"u{i}", "d"))
        roster.leave(i, 0.0)
    listed, more = roster.members(0.0)
    assert (len(listed), more) == (MAX_DEVICES, 0)
    assert "u2999" in {member.user for member in listed}


# --- peers -----------------------------------------------------------------------------------------------------------


def test_a_gateway_is_lost_after_its_life_and_its_return_says_that_something_was_missed() -> None:
    peers = Peers()
    assert not peers.heard("g1", 6.0, 0.0, 1)
    assert not peers.heard("g1", 6.0, 2.0, 2)
    assert peers.silent(8.0) == []
    assert peers.silent(8.1) == ["g1"]
    peers.lose("g1")
    assert peers.silent(9.0) == []
    assert peers.alive == frozenset()
    assert not peers.heard("g1", 6.0, 10.0)  # an announcement has no number
    assert peers.alive == {"g1"}
    assert peers.heard("g1", 6.0, 11.0, 6)


def test_who_could_not_hear_blames_nobody() -> None:
    peers = Peers()
    peers.heard("g1", 6.0, 0.0, 1)
    peers.restart(100.0)
    assert peers.silent(106.0) == []
    assert peers.silent(106.1) == ["g1"]


def test_a_goodbye_is_the_end() -> None:
    peers = Peers()
    peers.heard("g1", 6.0, 0.0, 5)
    peers.gone("g1")
    assert peers.silent(100.0) == []
    assert not peers.heard("g1", 6.0, 101.0, 9)


# --- on the wire -----------------------------------------------------------------------------------------------------


@given(announcements)
def test_an_announcement_survives_the_wire(announcement: Announcement) -> None:
    assert decode(encode(announcement)) == announcement


def test_an_announcement_never_outgrows_a_message() -> None:
    large = tuple(
        Member(
            f"u{i}{'ä' * 120}",
            "d" * 64,
            "ö" * 128,
            tuple(f"{role}{'ü' * 120}" for role in range(32)),
            tools=(ToolDeclaration(f"t{i}", "x" * 60_000),),
        )
        for i in range(MAX_DEVICES)
    )
    body = encode(Announcement("g1", large, more=7))
    assert len(body) < NATS_MAX_PAYLOAD
    read = decode(body)
    assert read.members
    assert len(read.members) + read.more == MAX_DEVICES + 7
    assert sum(len(member.tools) for member in read.members) == MAX_TOOLS_BYTES // 60_200


def test_equal_tools_are_sent_once() -> None:
    tools = (ToolDeclaration("t", "x" * 1000),)
    one_device = len(encode(announced("g1", Member("u0", "d", tools=tools))))
    crowd = encode(announced("g1", *(Member(f"u{i}", "d", tools=tuple(tools)) for i in range(100))))
    assert len(crowd) < one_device + 100 * 80
    assert all(member.tools == tools for member in decode(crowd).members)


def test_what_a_newer_gateway_says_is_understood() -> None:
    body = encode(announced("g1", Member("u1", "d1", tools=(PICK,))))
    newer = body.replace(b'"state":"active"', b'"state":"dancing","mood":1').replace(
        b'"name":"pick_file"', b'"name":"pick_file","cost":1'
    )
    assert newer != body
    (member,) = decode(newer).members
    assert member == Member("u1", "d1", tools=(PICK,))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"gateway":"g"}', b'{"gateway":1,"members":[1]}'])
def test_what_is_no_announcement_is_refused(body: bytes) -> None:
    with pytest.raises(CodecError):
        decode(body)


def test_a_tools_index_out_of_range_is_refused() -> None:
    body = encode(announced("g1", Member("u1", "d1", tools=(PICK,)))).replace(b'"tools":0', b'"tools":4')
    with pytest.raises(CodecError):
        decode(body)
