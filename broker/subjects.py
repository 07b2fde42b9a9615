"""Names and subjects: the one owner of how sessions, lanes and ids map to NATS subjects and back.

A session's log is spread over a few subjects of one partition stream, so that the stream's sequence is the
session's total order (`docs/ARCHITECTURE.md`):

========================  =====================================================================
``s.<pp>.<sid>.r.in``         records of participants: inputs, cancels (written by gateways)
``s.<pp>.<sid>.r.ev.<lane>``  records of a lane's owner (written under a fence)
``s.<pp>.<sid>.r.own.<lane>`` ownership of a lane (compare-and-set; the sequence is the fence)
``s.<pp>.<sid>.d.<lane>``     token deltas of a lane's owner (under the same fence; they age out)
``c.<pp>.<sid>``              the newest checkpoint (rollup; not republished)
``live.<pp>.<sid>.>``         the republished copy that readers subscribe to
``work.<pool>.<pp>.<sid>.<lane>``  a job: the lane has work (at most one)
``pres.<pp>.<sid>.here``  who is at a gateway, announced by it (core NATS, never stored)
``pres.<pp>.<sid>.ask``   asks the gateways of the session to announce it
``gw.<gateway>``          a gateway's heartbeat (core NATS)
========================  =====================================================================

Records and deltas are on subjects of their own so that a reader can take the records of a long run without
walking its tokens (ADR 2).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

from broker.errors import InvalidName

MAIN_LANE = "main"

LONG_NAME = r"[A-Za-z0-9_-]{1,128}"
"""Of sessions, and of ids that workers make."""
SHORT_NAME = r"[A-Za-z0-9_-]{1,64}"
"""Of lanes and devices, and of ids that clients make."""
RUN_NAME = r"run_[A-Za-z0-9_-]{1,64}"

_LONG = re.compile(LONG_NAME), "1-128 of A-Z a-z 0-9 _ -"
_SHORT = re.compile(SHORT_NAME), "1-64 of A-Z a-z 0-9 _ -"
_RUN_ID = re.compile(RUN_NAME), "run_ and the inputId that starts the run"


class Kind(StrEnum):
    """What an entry's subject says about who wrote it and how long it is kept."""

    INPUT = "in"
    EVENT = "ev"
    OWNER = "own"
    DELTA = "d"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry was written: its kind, and the lane (empty for inputs)."""

    kind: Kind
    lane: str = ""


def check_session(name: str) -> str:
    """Returns `name`, or raises InvalidName."""
    return _checked("session", name, _LONG)


def check_lane(name: str) -> str:
    """Returns `name`, or raises InvalidName."""
    return _checked("lane", name, _SHORT)


def check_input_id(value: str) -> str:
    """Returns `value`, or raises InvalidName."""
    return _checked("inputId", value, _SHORT)


def check_claim_id(value: str) -> str:
    """Returns `value`, or raises InvalidName."""
    return _checked("claimId", value, _SHORT)


def check_device(value: str) -> str:
    """Returns `value`, or raises InvalidName."""
    return _checked("device", value, _SHORT)


def check_worker_id(kind: str, value: str) -> str:
    """Returns `value`, an id that a worker has made (a toolCallId, approvalId or handoffId), or raises InvalidName."""
    return _checked(kind, value, _LONG)


def check_run_id(value: str) -> str:
    """Returns `value`, or raises InvalidName."""
    return _checked("runId", value, _RUN_ID)


def _checked(kind: str, value: str, form: tuple[re.Pattern[str], str]) -> str:
    pattern, said = form
    if not pattern.fullmatch(value):
        raise InvalidName(kind, value, said)
    return value


def run_id_of(input_id: str) -> str:
    """The id of the run that the input starts: known before the run exists, so that it can be cancelled."""
    return f"run_{input_id}"


def partition_of(session: str, partitions: int) -> int:
    """The partition of a session: CRC-32 (IEEE) of its name, modulo the number of partitions."""
    return zlib.crc32(session.encode()) % partitions


def stream_name(partition: int) -> str:
    """The stream that holds a partition."""
    return f"S{partition:02d}"


def session_inputs(partition: int) -> str:
    """Matches one subject of each session of a partition that anybody has written to."""
    return f"s.{partition:02d}.*.r.in"


@dataclass(frozen=True, slots=True)
class SessionSubjects:
    """The subjects of one session. Build with `of`."""

    session: str
    partition: int

    @classmethod
    def of(cls, session: str, partitions: int) -> SessionSubjects:
        """Raises InvalidName for a name outside its form."""
        return cls(check_session(session), partition_of(session, partitions))

    @property
    def stream(self) -> str:
        return stream_name(self.partition)

    @property
    def root(self) -> str:
        return f"s.{self.partition:02d}.{self.session}"

    @property
    def everything(self) -> str:
        return f"{self.root}.>"

    @property
    def records(self) -> str:
        return f"{self.root}.r.>"

    @property
    def inputs(self) -> str:
        return f"{self.root}.r.in"

    def events(self, lane: str) -> str:
        return f"{self.root}.r.ev.{lane}"

    def owner(self, lane: str) -> str:
        return f"{self.root}.r.own.{lane}"

    def deltas(self, lane: str) -> str:
        return f"{self.root}.d.{lane}"

    @property
    def checkpoint(self) -> str:
        return f"c.{self.partition:02d}.{self.session}"

    @property
    def live(self) -> str:
        return f"live.{self.partition:02d}.{self.session}.>"

    @property
    def live_records(self) -> str:
        return f"live.{self.partition:02d}.{self.session}.r.>"

    @property
    def presence(self) -> str:
        """Where gateways announce who is there."""
        return f"pres.{self.partition:02d}.{self.session}.here"

    @property
    def presence_ask(self) -> str:
        return f"pres.{self.partition:02d}.{self.session}.ask"

    @property
    def presence_all(self) -> str:
        """Announcements and questions."""
        return f"pres.{self.partition:02d}.{self.session}.*"

    def job(self, pool: str, lane: str) -> str:
        return f"work.{pool}.{self.partition:02d}.{self.session}.{lane}"


HEARTBEATS = "gw.*"
"""Of all gateways."""


def heartbeat(gateway: str) -> str:
    """The subject of a gateway's heartbeats."""
    return f"gw.{gateway}"


def place_of(subject: str) -> Place | None:
    """The place that a stored subject ``s.<pp>.<sid>.…`` names; None for one that this version does not know."""
    parts = subject.split(".")
    match parts[3:]:
        case ["d", lane]:
            return Place(Kind.DELTA, lane)
        case ["r", "ev", lane]:
            return Place(Kind.EVENT, lane)
        case ["r", "own", lane]:
            return Place(Kind.OWNER, lane)
        case ["r", "in"]:
            return Place(Kind.INPUT)
        case _:
            return None
