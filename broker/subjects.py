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
``work.<queue>.<pp>.<sid>.<lane>``  a job: the lane has work (at most one in a queue)
``pres.<pp>.<sid>.here``  who is at a gateway, announced by it (core NATS, never stored)
``pres.<pp>.<sid>.ask``   asks the gateways of the session to announce it
``gw.<gateway>``          a gateway's heartbeat (core NATS)
``workers.pool-<pool>.ask``   asks the workers of a pool who they are (core NATS)
``workers.pool-<pool>.here``  what each of them answers
``hooks.…``               what webhooks are to be sent (`broker.jetstream.outbox`)
``att.<sid>.<begun>.<id>.info``  what an attachment is (one message: with it the attachment is there)
``att.<sid>.<begun>.<id>.data.<upload>``  its bytes, in pieces
``att.<sid>.<begun>.<id>.up.<upload>``  an upload has begun
``alarm.at.<sid>.<begun>.<inputId>``  when a scheduled input is due (a message schedule of NATS)
``alarm.due.<sid>.<begun>.<inputId>``  it is due: put there by the server
``use.<sid>``  how much the session takes of its tenant's storage
========================  =====================================================================

``<sid>`` is the session's key: its name, or for a tenant other than the default one the tenant, ``~`` and the name. No
name holds a ``~``, so that no name of one tenant is a session of another (ADR 27). In the same way a pool is known by its name
or, for one of a tenant's own, the tenant, ``~`` and the name (ADR 34). ``<queue>`` is a pool, or a pool, ``+`` and a priority,
or these, ``+`` and the number of a share of the tenants (ADR 42).

Records and deltas are on subjects of their own so that a reader can take the records of a long run without
walking its tokens (ADR 2).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NewType

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


VERSION_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}"
"""Of a worker's agent; a tag of a container's image is one."""
_VERSION = re.compile(VERSION_LABEL), "1-128 of A-Z a-z 0-9 _ . + -, beginning with a letter, a digit or _"

TENANT_NAME = r"[a-z0-9][a-z0-9-]{0,31}"
_TENANT = re.compile(TENANT_NAME), "1-32 of a-z 0-9 -, not beginning with -"
_OF_TENANT = "~"
_RUN = "run_"
_CONSUMER = "pool-"
_OF_POOL = "+"
NORMAL = "normal"
"""The priority of jobs that nothing else is said of."""
SessionKey = NewType("SessionKey", str)
"""Names a session among those of all tenants. A type of its own, so that a name is not taken for it: that would be the
default tenant's session.
"""


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


def check_tenant(name: str) -> str:
    """Returns `name`, or raises InvalidName."""
    return _checked("tenant", name, _TENANT)


def session_key(tenant: str, session: str) -> SessionKey:
    """What the session is known by in the log and to every process; `tenant` "": the default one."""
    return SessionKey(f"{tenant}{_OF_TENANT}{session}" if tenant else session)


def split_key(key: str) -> tuple[str, str]:
    """Tenant and name of a session. Whether they have their form is not looked at."""
    tenant, separator, session = key.partition(_OF_TENANT)
    return (tenant, session) if separator else ("", key)


def pool_key(tenant: str, pool: str) -> str:
    """What a pool is known by in the queue: its name or, for one of a tenant's own, the tenant, `~` and the name. Raises
    InvalidName.
    """
    return session_key(tenant, _checked("pool", pool, _LONG))


def check_pool_key(key: str) -> str:
    """Returns `key`, of a pool, or raises InvalidName."""
    tenant, pool = split_key(key)
    if tenant or pool != key:
        check_tenant(tenant)
    _checked("pool", pool, _LONG)
    return key


def check_version(label: str) -> str:
    """Returns `label`, of a version of an agent, or raises InvalidName."""
    return _checked("version", label, _VERSION)


def queue_key(pool: str, priority: str, share: int) -> str:
    """What a queue of a pool is known by. The one of normal jobs that are in no tenants' share is known as the pool."""
    if share:
        return f"{pool}{_OF_POOL}{priority}{_OF_POOL}{share}"
    return pool if priority == NORMAL else f"{pool}{_OF_POOL}{priority}"


def split_queue(key: str) -> tuple[str, str, int]:
    """Pool, priority and share of a key that `queue_key` has made. Of another one, what is missing is normal, and 0."""
    pool, _, rest = key.partition(_OF_POOL)
    priority, _, share = rest.partition(_OF_POOL)
    return pool, priority or NORMAL, int(share) if share.isascii() and share.isdigit() else 0


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


def check_attachment_id(value: str) -> str:
    """Returns `value`, or raises InvalidName."""
    return _checked("attachment", value, _SHORT)


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
    return f"{_RUN}{input_id}"


def input_id_of(run_id: str) -> str:
    """The inverse, for the run of an input. Of any other id it is one that no input has."""
    return run_id.removeprefix(_RUN)


def partition_of(key: str, partitions: int) -> int:
    """The partition of a session: CRC-32 (IEEE) of its key, modulo the number of partitions."""
    return zlib.crc32(key.encode()) % partitions


def stream_name(partition: int) -> str:
    """The stream that holds a partition."""
    return f"S{partition:02d}"


def pool_consumer(queue: str) -> str:
    """The durable consumer of `WORK` that a pool's workers pull from: that of the queue, by its key."""
    return f"{_CONSUMER}{queue}"


def queue_of_consumer(name: str) -> str:
    """The inverse."""
    return name.removeprefix(_CONSUMER)


def workers_ask(pool: str) -> str:
    """Where the workers of a pool are asked who they are."""
    return f"workers.{pool_consumer(pool)}.ask"


def workers_here(pool: str) -> str:
    """Where they say it."""
    return f"workers.{pool_consumer(pool)}.here"


def session_inputs(partition: int) -> str:
    """Matches one subject of each session of a partition that anybody has written to."""
    return f"s.{partition:02d}.*.r.in"


def session_events(partition: int) -> str:
    """Matches what owners of lanes have said in all sessions of a partition, tokens excepted."""
    return f"s.{partition:02d}.*.r.ev.*"


def session_of(subject: str) -> SessionKey:
    """The session of a stored subject ``s.<pp>.<sid>.…``."""
    return SessionKey(subject.split(".", 3)[2])


def partition_records(partition: str) -> str:
    """Matches the records of all sessions of a partition, in two digits; `*`: of all partitions."""
    return f"s.{partition}.*.r.>"


def hooks_subject(*parts: str) -> str:
    """A subject of the outbox."""
    return ".".join(("hooks", *parts))


@dataclass(frozen=True, slots=True)
class SessionSubjects:
    """The subjects of one session. Build with `of`. `session` is its name, as its tenant's clients know it."""

    session: str
    partition: int
    tenant: str = ""
    """"": the default one."""

    @classmethod
    def of(cls, key: str, partitions: int) -> SessionSubjects:
        """Raises InvalidName for a key outside its form."""
        tenant, session = split_key(key)
        if tenant or session != key:
            check_tenant(tenant)
        return cls(check_session(session), partition_of(key, partitions), tenant)

    @property
    def key(self) -> SessionKey:
        """Names the session among those of all tenants."""
        return session_key(self.tenant, self.session)

    @property
    def stream(self) -> str:
        return stream_name(self.partition)

    @property
    def root(self) -> str:
        return f"s.{self.partition:02d}.{self.key}"

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
        return f"c.{self.partition:02d}.{self.key}"

    @property
    def live(self) -> str:
        return f"live.{self.partition:02d}.{self.key}.>"

    @property
    def live_records(self) -> str:
        return f"live.{self.partition:02d}.{self.key}.r.>"

    @property
    def presence(self) -> str:
        """Where gateways announce who is there."""
        return f"pres.{self.partition:02d}.{self.key}.here"

    @property
    def presence_ask(self) -> str:
        return f"pres.{self.partition:02d}.{self.key}.ask"

    @property
    def presence_all(self) -> str:
        """Announcements and questions."""
        return f"pres.{self.partition:02d}.{self.key}.*"

    def job(self, queue: str, lane: str) -> str:
        return f"work.{queue}.{self.partition:02d}.{self.key}.{lane}"


USAGE = "use.*"
"""Of all sessions."""


def usage_of_session(session: SessionKey) -> str:
    return f"use.{session}"


def used_by(subject: str) -> SessionKey:
    """The session of a subject that `usage_of_session` has made."""
    return SessionKey(subject.removeprefix("use."))


ATTACHMENTS = "att.>"
"""Of all sessions."""
UPLOADS = "att.*.*.*.up.*"
"""Uploads that have begun, of all sessions."""
SWEEP = "att.sweep"
"""Says when somebody has looked last for uploads that were cut short."""


@dataclass(frozen=True, slots=True)
class AttachmentPlace:
    """Where a session's attachments are. `begun` is the entry with which the session began anew (0: it never has): what
    was before a deletion is in another place, and cannot be found in this one.
    """

    session: SessionKey
    begun: int

    @property
    def everything(self) -> str:
        return f"att.{self.session}.{self.begun}.>"

    @property
    def infos(self) -> str:
        return f"att.{self.session}.{self.begun}.*.info"

    def of(self, id_: str) -> str:
        """All that is stored of one attachment."""
        return f"att.{self.session}.{self.begun}.{id_}.>"

    def info(self, id_: str) -> str:
        return f"att.{self.session}.{self.begun}.{id_}.info"

    def data(self, id_: str, upload: str) -> str:
        return f"att.{self.session}.{self.begun}.{id_}.data.{upload}"

    def upload(self, id_: str, upload: str) -> str:
        return f"att.{self.session}.{self.begun}.{id_}.up.{upload}"


def attachments_of(session: SessionKey) -> str:
    """Matches all attachments that a session has ever had."""
    return f"att.{session}.>"


def infos_of(session: SessionKey) -> str:
    """Matches what says of each of a session's attachments what it is."""
    return f"att.{session}.*.*.info"


def attachment_place(subject: str) -> tuple[AttachmentPlace, str, str]:
    """The place, the attachment's id and what follows it, of a subject that an AttachmentPlace has made."""
    _, session, begun, id_, rest = subject.split(".", 4)
    return AttachmentPlace(SessionKey(session), int(begun)), id_, rest


ALARMS = "alarm.>"
"""Of all sessions."""
ALARMS_DUE = "alarm.due.>"


@dataclass(frozen=True, slots=True)
class AlarmPlace:
    """The alarm of a scheduled input. `begun` is the entry with which its session began anew, as of an AttachmentPlace: an
    alarm of before a deletion is for nothing that there is now.
    """

    session: SessionKey
    begun: int
    input_id: str

    @property
    def at(self) -> str:
        """Where it waits."""
        return f"alarm.at.{self.session}.{self.begun}.{self.input_id}"

    @property
    def due(self) -> str:
        """Where the server puts it when it is time."""
        return f"alarm.due.{self.session}.{self.begun}.{self.input_id}"

    @property
    def both(self) -> str:
        return f"alarm.*.{self.session}.{self.begun}.{self.input_id}"


def alarms_of(session: SessionKey, begun: int | None = None) -> str:
    """Matches all alarms that a session has, or only those of since entry `begun`."""
    return f"alarm.*.{session}.>" if begun is None else f"alarm.*.{session}.{begun}.*"


def alarm_place(subject: str) -> AlarmPlace:
    """The place of a subject that an AlarmPlace has made. Raises ValueError."""
    _, _, session, begun, input_id = subject.split(".")
    return AlarmPlace(SessionKey(session), int(begun), input_id)


HEARTBEATS = "gw.*"
"""Of all gateways."""


def heartbeat(gateway: str) -> str:
    """The subject of a gateway's heartbeats."""
    return f"gw.{gateway}"


_PLACES_KEPT = 1024
"""Places are looked up for every token, and most sessions have one lane, of one name."""


def _is_lane(name: str) -> bool:
    return _SHORT[0].fullmatch(name) is not None


def place_of(subject: str) -> Place | None:
    """The place that a stored subject ``s.<pp>.<sid>.…`` names; None for one that this version does not know."""
    return _place(subject.split(".", 3)[-1])


@lru_cache(_PLACES_KEPT)
def _place(rest: str) -> Place | None:
    match rest.split("."):
        case ["d", lane] if _is_lane(lane):
            return Place(Kind.DELTA, lane)
        case ["r", "ev", lane] if _is_lane(lane):
            return Place(Kind.EVENT, lane)
        case ["r", "own", lane] if _is_lane(lane):
            return Place(Kind.OWNER, lane)
        case ["r", "in"]:
            return Place(Kind.INPUT)
        case _:
            return None
