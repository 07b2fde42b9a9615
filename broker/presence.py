"""Who is there, without a network: what gateways announce of a session, and what that adds up to. Times are arguments.

Each gateway announces the devices connected to it (`Announcement`, made from its `Roster`); whoever wants to know who
is there merges the announcements on a `Board`. There are two graces, both of the gateway's `grace_s`:

- A gateway goes on announcing a device that has left for the grace, marked as not here. So a reload is no coming and
  going, also for those who look only after it began, and also when it leads to another gateway.
- A board keeps the people of a gateway that is lost for the grace, as if they had all left at that moment.

Nothing here is stored: presence is what gateways say now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from broker import reading
from broker.depth import STORED_DEPTH_MAX, is_deeper
from broker.errors import CodecError
from broker.tools import ToolDeclaration

STATES = ("typing", "active", "idle", "away")
"""What a device may say of itself, the liveliest first."""
MAX_DEVICES = 1000
"""Devices that a gateway announces of one session; beyond that they are only counted."""
MAX_USER_DEVICES = 32
"""As above, of one user: who has more is a machine."""
MAX_MEMBERS_BYTES = 512 << 10
MAX_TOOLS_BYTES = 384 << 10
"""Together below the 1 MiB of a NATS message. Of what is beyond, devices are only counted, and tools left out."""
_MAX_PEERS = 1000

_TOOL_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "name": reading.text,
    "description": reading.text,
    "parameters": reading.maybe_thing,
    "result": reading.maybe_thing,
    "idempotent": reading.flag,
    "needs_permission": reading.flag,
}
_RANK = {state: rank for rank, state in enumerate(STATES)}


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a user, as one gateway knows it. `here`: it has a connection; else it has left, within the grace."""

    user: str
    device: str
    name: str | None = None
    roles: tuple[str, ...] = ()
    state: str = "active"
    tools: tuple[ToolDeclaration, ...] = ()
    watching: bool = True
    here: bool = True

    def left(self) -> Member:
        """The same device without a connection: nobody types there any more."""
        return dataclasses.replace(self, here=False, state="active" if self.state == "typing" else self.state)


@dataclass(frozen=True, slots=True)
class Device:
    """A device of somebody who is there, on whatever gateways. `here` is False while only the grace keeps it."""

    device: str
    state: str
    tools: tuple[ToolDeclaration, ...]
    watching: bool
    here: bool


@dataclass(frozen=True, slots=True)
class Present:
    """Somebody who is there, once for all devices. `watching`: somebody looks at the session on one of them.

    `state` is the liveliest of the devices that watch (of all, if none does).
    """

    kind: str
    id: str
    name: str | None
    roles: tuple[str, ...]
    state: str
    watching: bool
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Announcement:
    """All that a gateway knows of a session's devices. It replaces what the gateway announced before.

    `more` devices are not among the members. A gateway that is silent for `life_s` is lost.
    """

    gateway: str
    members: tuple[Member, ...]
    more: int = 0
    life_s: float = 6.0
    grace_s: float = 10.0


class Roster:
    """The devices of one session at one gateway: those that are connected, and those that left within the grace."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._seats: dict[object, Member] = {}
        self._left: dict[tuple[str, str], tuple[Member, float]] = {}

    @property
    def empty(self) -> bool:
        return not self._seats and not self._left

    @property
    def due(self) -> float | None:
        """When the first of those who left is no longer listed."""
        return min((until for _, until in self._left.values()), default=None)

    def put(self, seat: object, member: Member) -> None:
        """Says who is on a connection; again with the same `seat`: what is new of them."""
        self._seats[seat] = member
        self._left.pop((member.user, member.device), None)

    def leave(self, seat: object, now: float) -> None:
        """The connection is gone. May be said again."""
        member = self._seats.pop(seat, None)
        if member is None:
            return
        # At the end: who left last. A flood of devices that come and go must not grow without limit.
        self._left.pop((member.user, member.device), None)
        self._left[member.user, member.device] = member.left(), now + self._grace_s
        if len(self._left) > MAX_DEVICES:
            del self._left[next(iter(self._left))]

    def members(self, now: float) -> tuple[tuple[Member, ...], int]:
        """What to announce: the devices, in order, and how many more there are."""
        self._left = {key: (member, until) for key, (member, until) in self._left.items() if until > now}
        devices: dict[tuple[str, str], list[Member]] = {}
        for member in (*self._seats.values(), *(member for member, _ in self._left.values())):
            devices.setdefault((member.user, member.device), []).append(member)
        return _selected([_united(same) for same in devices.values()])


class Board:
    """What the gateways have announced of one session, merged. The order in which announcements came is of no matter."""

    def __init__(self) -> None:
        self._heard: dict[str, Announcement] = {}
        self._lost: dict[str, float] = {}
        self.participants: tuple[Present, ...] = ()
        """Who is there, by id; also those who only listen (`watching` is False) but may have tools."""
        self.more = 0
        """Devices that were only counted."""

    @property
    def gateways(self) -> frozenset[str]:
        """Those that have somebody here and are not lost."""
        return frozenset(self._heard.keys() - self._lost.keys())

    @property
    def due(self) -> float | None:
        """When `expire` has something to do next."""
        return min(self._lost.values(), default=None)

    def take(self, announcement: Announcement) -> bool:
        """True if who is there has changed."""
        self._lost.pop(announcement.gateway, None)
        if announcement.members or announcement.more:
            self._heard[announcement.gateway] = announcement
        else:
            self._heard.pop(announcement.gateway, None)
        return self._merge()

    def lose(self, gateway: str, now: float) -> bool:
        """The gateway is gone: its people leave now. True if who is there has changed."""
        heard = self._heard.get(gateway)
        if heard is None or gateway in self._lost:
            return False
        self._heard[gateway] = dataclasses.replace(heard, members=tuple(m.left() for m in heard.members))
        self._lost[gateway] = now + heard.grace_s
        return self._merge()

    def expire(self, now: float) -> bool:
        """Lets those go whose grace is over. True if who is there has changed."""
        over = [gateway for gateway, until in self._lost.items() if until <= now]
        for gateway in over:
            del self._lost[gateway], self._heard[gateway]
        return bool(over) and self._merge()

    def _merge(self) -> bool:
        devices: dict[tuple[str, str], list[Member]] = {}
        for gateway in sorted(self._heard):
            for member in self._heard[gateway].members:
                devices.setdefault((member.user, member.device), []).append(member)
        users: dict[str, list[Member]] = {}
        for user, device in sorted(devices):
            users.setdefault(user, []).append(_united(devices[user, device]))
        participants = tuple(_present(user, members) for user, members in users.items())
        more = sum(heard.more for heard in self._heard.values())
        if (participants, more) == (self.participants, self.more):
            return False
        self.participants, self.more = participants, more
        return True


@dataclass(slots=True)
class _Peer:
    at: float
    life_s: float
    n: int | None
    lost: bool = False


class Peers:
    """Which gateways are alive, by their heartbeats, which are numbered."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}

    @property
    def alive(self) -> frozenset[str]:
        return frozenset(name for name, peer in self._peers.items() if not peer.lost)

    def heard(self, gateway: str, life_s: float, now: float, n: int | None = None) -> bool:
        """A sign of life; `n` is a heartbeat's number. True if heartbeats were missed: so may announcements have been."""
        peer = self._peers.pop(gateway, None)
        known = None if peer is None else peer.n
        # Put at the end: should there be too many, the one that has been silent for longest is forgotten.
        self._peers[gateway] = _Peer(now, life_s, known if n is None else n)
        if len(self._peers) > _MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        return n is not None and known is not None and n != known + 1

    def gone(self, gateway: str) -> None:
        """It has said goodbye."""
        self._peers.pop(gateway, None)

    def silent(self, now: float) -> list[str]:
        """Those of whom nothing was heard for the time of their life, and that are not lost yet."""
        return [name for name, peer in self._peers.items() if not peer.lost and now - peer.at > peer.life_s]

    def lose(self, gateway: str) -> None:
        """It is dead for us; its number is kept, should it come back."""
        self._peers[gateway].lost = True

    def restart(self, now: float) -> None:
        """Begins to count anew: until now we could not hear anybody."""
        for peer in self._peers.values():
            peer.at = max(peer.at, now)


def _united(same: list[Member]) -> Member:
    """One device on several connections. What is connected counts before what has left."""
    if len(same) == 1:
        return same[0]
    members = [member for member in same if member.here] or same
    tools: dict[str, ToolDeclaration] = {}
    for member in members:
        for tool in member.tools:
            tools.setdefault(tool.name, tool)
    return dataclasses.replace(
        members[0],
        name=_name(members),
        roles=_roles(members),
        state=_liveliest(members),
        tools=tuple(tools.values()),
        watching=any(member.watching for member in members),
    )


def _present(user: str, members: list[Member]) -> Present:
    connected = [member for member in members if member.here] or members
    looking = [member for member in members if member.watching]
    return Present(
        kind="user",
        id=user,
        name=_name(connected),
        roles=_roles(connected),
        state=_liveliest(looking or members),
        watching=bool(looking),
        devices=tuple(Device(m.device, m.state, m.tools, m.watching, m.here) for m in members),
    )


def _name(members: Iterable[Member]) -> str | None:
    return next((member.name for member in members if member.name is not None), None)


def _roles(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(sorted({role for member in members for role in member.roles}))


def _liveliest(members: Iterable[Member]) -> str:
    return min((member.state for member in members), key=_RANK.__getitem__)


def _selected(members: list[Member]) -> tuple[tuple[Member, ...], int]:
    """As many as may be announced. Those with tools first: calls look for them."""
    members.sort(key=lambda member: (not member.tools, member.user, _RANK[member.state], member.device))
    chosen: list[Member] = []
    of_user: dict[str, int] = {}
    for member in members:
        had = of_user.get(member.user, 0)
        if had < MAX_USER_DEVICES and len(chosen) < MAX_DEVICES:
            of_user[member.user] = had + 1
            chosen.append(member)
    return tuple(chosen), len(members) - len(chosen)


# --- on the wire between gateways and workers -----------------------------------------------------------------------


def encode(announcement: Announcement) -> bytes:
    """At most about 900 KiB: devices beyond that are only counted. Equal lists of tools are sent once."""
    sets = _ToolSets()
    members: list[dict[str, Any]] = []
    size = 0
    for member in announcement.members:
        wire = _member_wire(member, sets)
        size += len(orjson.dumps(wire)) + 1
        if size > MAX_MEMBERS_BYTES:
            break
        members.append(wire)
    return orjson.dumps(
        {
            "gateway": announcement.gateway,
            "life_ms": round(announcement.life_s * 1000),
            "grace_ms": round(announcement.grace_s * 1000),
            "more": announcement.more + len(announcement.members) - len(members),
            "tools": [orjson.Fragment(body) for body in sets.bodies],
            "members": members,
        }
    )


def decode(body: bytes) -> Announcement:
    """Raises CodecError."""
    try:
        wire = orjson.loads(body)
        if is_deeper(wire, body, STORED_DEPTH_MAX):
            raise ValueError("nested too deeply")
        sets = [tuple(map(_tool, tools)) for tools in wire["tools"]]
        return Announcement(
            gateway=reading.text(wire["gateway"]),
            members=tuple(_member(member, sets) for member in wire["members"]),
            more=reading.whole(wire["more"]),
            life_s=reading.whole(wire["life_ms"]) / 1000,
            grace_s=reading.whole(wire["grace_ms"]) / 1000,
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CodecError(f"not an announcement: {type(error).__name__}") from None


class _ToolSets:
    """The lists of declarations of an announcement, each once: the pages of an app all declare the same."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._index: dict[bytes, int] = {}
        self._size = 0

    def place(self, tools: tuple[ToolDeclaration, ...]) -> int | None:
        if not tools:
            return None
        body = orjson.dumps([dataclasses.asdict(tool) for tool in tools])
        index = self._index.get(body)
        if index is None and self._size + len(body) <= MAX_TOOLS_BYTES:
            index = self._index[body] = len(self.bodies)
            self.bodies.append(body)
            self._size += len(body)
        return index


def _member_wire(member: Member, sets: _ToolSets) -> dict[str, Any]:
    wire: dict[str, Any] = {"user": member.user, "device": member.device, "state": member.state}
    if member.name is not None:
        wire["name"] = member.name
    if member.roles:
        wire["roles"] = member.roles
    if (index := sets.place(member.tools)) is not None:
        wire["tools"] = index
    if not member.watching:
        wire["watching"] = False
    if not member.here:
        wire["here"] = False
    return wire


def _tool(wire: dict[str, Any]) -> ToolDeclaration:
    return ToolDeclaration(**{name: read(wire[name]) for name, read in _TOOL_FIELDS.items() if name in wire})


def _member(wire: dict[str, Any], sets: list[tuple[ToolDeclaration, ...]]) -> Member:
    state = wire["state"]
    return Member(
        user=reading.text(wire["user"]),
        device=reading.text(wire["device"]),
        name=reading.maybe_text(wire.get("name")),
        roles=reading.texts(wire.get("roles", [])),
        # A newer gateway may know states that we do not.
        state=state if state in _RANK else "active",
        tools=sets[wire["tools"]] if "tools" in wire else (),
        watching=reading.flag(wire.get("watching", True)),
        here=reading.flag(wire.get("here", True)),
    )
