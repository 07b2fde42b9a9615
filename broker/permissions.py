"""Who may do what in NATS: the one table of subjects and roles, and what follows from it for a user of NATS.

Servers' configurations, the chart, `docs/SECURITY-NATS.md` and the tests of what is refused are made from `RULES`. A
subject that a role needs anew is one line there.

In a rule's subject, ``<S>`` stands for each partition's stream, ``<pool>`` for the pools that a user is for, ``<queue>``
for the consumers of all queues that these may have, and ``<inbox>`` for the prefix of the subjects that answers to it come
to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from broker.queues import EVERY_QUEUE
from broker.subjects import SessionKey, SessionSubjects, attachments_of, pool_consumer, split_key, stream_name


class Role(StrEnum):
    """What a user of NATS is for."""

    PROVISIONER = "provisioner"
    """Makes the streams; saves, restores and moves sessions; looks as an observer does."""
    GATEWAY = "gateway"
    WORKER = "worker"
    WEBHOOKS = "webhooks"
    """The sender of webhooks."""
    OBSERVER = "observer"
    """Looks: `antiphon doctor`, `antiphon trace`, `antiphon export`."""
    CALLOUT = "callout"
    """Checks the service tokens of workers for the servers (`antiphon callout`)."""


STANDARD: Final = tuple(role for role in Role if role is not Role.CALLOUT)
"""The roles that every installation has users for; the callout's is made where its process runs."""

_P, _G, _W, _H, _O = Role.PROVISIONER, Role.GATEWAY, Role.WORKER, Role.WEBHOOKS, Role.OBSERVER
_C = Role.CALLOUT
_ALL = frozenset(STANDARD)
_ANYBODY = frozenset(Role)
_NONE: frozenset[Role] = frozenset()
_API = "$JS.API"
_POOL = "<pool>"
_QUEUE = "<queue>"
_JOBS = "work.*.*.*.*"
_ALARM = "alarm.at.*.*.*"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may publish on subjects, and who may subscribe to them. Nobody else may do either."""

    subject: str
    meaning: str
    publish: frozenset[Role] = _NONE
    subscribe: frozenset[Role] = _NONE


def _publish(subject: str, meaning: str, *roles: Role) -> Rule:
    return Rule(subject, meaning, publish=frozenset(roles))


def _subscribe(subject: str, meaning: str, *roles: Role) -> Rule:
    return Rule(subject, meaning, subscribe=frozenset(roles))


RULES: Final = (
    # The log.
    _publish("s.*.*.r.in", "what participants send", _P, _G),
    _publish("s.*.*.r.ev.*", "what a lane's owner says; a gateway for people", _P, _G, _W),
    _publish("s.*.*.r.own.*", "who owns a lane; a gateway for people", _P, _G, _W),
    _publish("s.*.*.d.*", "tokens", _P, _W),
    _publish("c.*.*", "checkpoints", _P, _W),
    _subscribe("live.>", "what the servers repeat of the log; nobody publishes it", _P, _G, _W, _H, _O),
    # Beside the log.
    _publish(_JOBS, "jobs", _P, _G, _W),
    _publish("idx.user.*.*", "which sessions are whose", _P, _G),
    _publish("idx.handoff.*.*", "which sessions wait for a role", _P, _W),
    _publish("idx.dead.*.*", "which sessions have inputs that were given up", _P, _W),
    Rule("pres.*.*.here", "who is at a gateway", frozenset({_G}), frozenset({_G, _W, _H})),
    _publish("pres.*.*.ask", "asks gateways who is there", _G, _W, _H),
    _subscribe("pres.*.*.*", "both of them", _G),
    Rule("gw.*", "heartbeats of gateways", frozenset({_G}), _ALL),
    Rule("workers.<pool>.ask", "asks workers who they are", frozenset({_P, _O}), frozenset({_W})),
    Rule("workers.<pool>.here", "who they are", frozenset({_W}), frozenset({_P, _O})),
    _publish("antiphon.meta.*", "the shape of the log; which versions of workers are drained", _P),
    _subscribe("antiphon.meta.drains", "the latter, at once", _W),
    _publish("hooks.>", "what webhooks are to be sent, and who sends", _P, _H),
    _publish("att.>", "attachments", _P, _G, _W),
    _publish("revoked.*.*", "what tokens may no longer be used for", _P, _G),
    _subscribe("revoked.>", "the same, at once", _G, _C),
    _publish(_ALARM, "when a scheduled input is due", _P, _G, _W),
    Rule("use.*", "how much sessions take", frozenset({_G}), frozenset({_G})),
    _publish("audit.*", "who did what", _P, _G, _O),
    # What JetStream is asked for.
    _publish(f"{_API}.INFO", "the account", _P, _G, _O),
    _publish(f"{_API}.STREAM.LIST", "all streams and how full they are", _P, _G, _O),
    _publish(f"{_API}.STREAM.INFO.<S>", "a partition", *_ALL),
    _publish(f"{_API}.STREAM.INFO.ANTIPHON_META", "the server's clock", *_ANYBODY),
    _publish(f"{_API}.STREAM.INFO.HOOKS", "the outbox", _P, _G, _H, _O),
    _publish(f"{_API}.STREAM.MSG.GET.HOOKS", "a message of the outbox", _P, _H),
    _publish(f"{_API}.STREAM.MSG.DELETE.HOOKS", "takes one off", _P, _H),
    _publish(f"{_API}.STREAM.PURGE.HOOKS", "takes all of a session or a receiver off, or the whole outbox", _P, _H),
    _publish(f"{_API}.DIRECT.GET.HOOKS", "messages of the outbox", _P, _H),
    _publish(f"{_API}.STREAM.INFO.ATTACHMENTS", "the attachments of a session", _P, _G, _O),
    _publish(f"{_API}.STREAM.MSG.GET.ATTACHMENTS", "what an attachment is, from the leader", _P, _G, _W, _O),
    _publish(f"{_API}.DIRECT.GET.ATTACHMENTS", "attachments, from any copy", _P, _G, _W, _O),
    _publish(f"{_API}.STREAM.PURGE.ATTACHMENTS", "deletes attachments, or all of them", _P, _G, _W),
    _publish(f"{_API}.STREAM.INFO.REVOKED", "what is revoked", _P, _G, _O, _C),
    _publish(f"{_API}.DIRECT.GET.REVOKED", "what is revoked, from any copy", _P, _G, _O, _C),
    _publish(f"{_API}.STREAM.INFO.AUDIT", "the audit log", _P, _G, _O),
    _publish(f"{_API}.DIRECT.GET.AUDIT", "records of the audit log", _P, _G, _O),
    _publish(f"{_API}.STREAM.INFO.USAGE", "how much sessions take", _P, _G, _O),
    _publish(f"{_API}.DIRECT.GET.USAGE", "the same, from any copy", _P, _G, _O),
    _publish(f"{_API}.STREAM.PURGE.USAGE", "forgets it of a session, or of all", _P, _G),
    _publish(f"{_API}.STREAM.INFO.ALARMS", "the alarms of scheduled inputs", _P, _G, _O),
    _publish(f"{_API}.STREAM.MSG.GET.ALARMS", "whether there is an alarm", _P, _G),
    _publish(f"{_API}.STREAM.PURGE.ALARMS", "takes an alarm off, or all", _P, _G),
    _publish(f"{_API}.CONSUMER.INFO.ALARMS.due", "alarms that have gone off", _P, _G, _O),
    _publish(f"{_API}.CONSUMER.MSG.NEXT.ALARMS.due", "asks for one", _G),
    _publish("$JS.ACK.ALARMS.due.>", "says what has become of one", _G),
    _publish(f"{_API}.STREAM.INFO.INDEX", "the index", _P, _G, _O),
    _publish(f"{_API}.STREAM.INFO.WORK", "the queue", _P, _G, _O),
    _publish(f"{_API}.STREAM.MSG.GET.<S>", "an entry, from the leader", *_ALL),
    _publish(f"{_API}.STREAM.MSG.GET.ANTIPHON_META", "the shape of the log", *_ANYBODY),
    _publish(f"{_API}.STREAM.MSG.GET.WORK", "whether a job is still there", _P, _G, _W, _O),
    _publish(f"{_API}.DIRECT.GET.<S>", "entries, from any copy", *_ALL),
    _publish(f"{_API}.DIRECT.GET.INDEX", "notes of the index", _P, _G, _O),
    _publish(f"{_API}.STREAM.PURGE.<S>", "deletes a session, or a whole partition", _P, _G),
    _publish(f"{_API}.STREAM.PURGE.INDEX", "deletes a note, or the whole index", _P, _G, _W),
    _publish(f"{_API}.STREAM.PURGE.WORK", "deletes the jobs of a tenant that is deleted, or all", _P),
    _publish(f"{_API}.CONSUMER.LIST.WORK", "all pools", _P, _G, _O),
    _publish(f"{_API}.CONSUMER.INFO.WORK.<queue>", "a pool", *_ALL),
    _publish(f"{_API}.CONSUMER.MSG.NEXT.WORK.<queue>", "asks for a job", _W),
    _publish("$JS.ACK.WORK.<queue>.>", "says what has become of a job", _W),
    *(
        _publish(f"{_API}.STREAM.{operation}.{stream}", "makes and changes streams", _P)
        for operation in ("CREATE", "UPDATE")
        for stream in (
            "<S>",
            "ANTIPHON_META",
            "INDEX",
            "HOOKS",
            "WORK",
            "ATTACHMENTS",
            "ALARMS",
            "REVOKED",
            "AUDIT",
            "USAGE",
        )
    ),
    _publish(f"{_API}.CONSUMER.DURABLE.CREATE.WORK.<queue>", "makes and changes pools", _P),
    _publish(f"{_API}.CONSUMER.DURABLE.CREATE.ALARMS.due", "makes the consumer of alarms", _P),
    # Of NATS itself.
    _subscribe("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.>", "a stream has a new leader", *_ALL),
    _publish("$SYS.REQ.USER.INFO", "what this user may do", *_ANYBODY),
    _subscribe("$SYS.REQ.USER.AUTH", "the servers ask who may come in", _C),
    _publish("$SYS._INBOX.*.*", "answers to them; they take those alone that are signed", _C),
    _subscribe("<inbox>.>", "answers to this user alone", *_ANYBODY),
)

NOT_OF_ONE_SESSION: Final = (
    *(f"{_API}.STREAM.PURGE.INDEX", f"{_API}.STREAM.PURGE.ATTACHMENTS"),
    *(f"{_API}.STREAM.MSG.GET.ATTACHMENTS", f"{_API}.DIRECT.GET.ATTACHMENTS"),
    # A header of it can take off the alarm of any session.
    _ALARM,
)
"""What names its session in the body, where permissions do not see it: who is for some sessions alone may not do it."""


@dataclass(frozen=True, slots=True)
class Access:
    """Subjects on which a user may publish, and to which it may subscribe; the denied ones go before."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_denied: tuple[str, ...] = ()
    subscribe_denied: tuple[str, ...] = ()

    def lacks(self, needed: Access) -> Iterator[str]:
        """What of `needed` is not within this, as `publish <subject>` and `subscribe <subject>`."""
        for word, wanted, allowed, denied in (
            ("publish", needed.publish, self.publish, self.publish_denied),
            ("subscribe", needed.subscribe, self.subscribe, self.subscribe_denied),
        ):
            for subject in wanted:
                covered = any(covers(pattern, subject) for pattern in allowed)
                if not covered or any(overlap(pattern, subject) for pattern in denied):
                    yield f"{word} {subject}"

    def may_publish(self, subject: str) -> bool:
        return not any(self.lacks(Access((subject,), ())))

    def may_subscribe(self, subject: str) -> bool:
        return not any(self.lacks(Access((), (subject,))))


ANY_POOL: Final = "*"
_ANY_LANE: Final = "*"


@dataclass(frozen=True, slots=True)
class User:
    """A user of NATS. `pools` are those that it works for, or (a gateway's, a provisioner's) that there are; `*`: any."""

    role: Role
    pools: tuple[str, ...] = (ANY_POOL,)
    inbox: str = ""
    """The prefix of the subjects that answers to this user come to (`ANTIPHON_NATS_INBOX`); empty: that of the role."""
    sessions: tuple[SessionKey, ...] = ()
    """The sessions that a worker is for; empty: all."""
    lanes: tuple[str, ...] = ()
    """The lanes of these sessions that it may write to; empty: all. It needs `sessions`."""

    @property
    def of_a_tenant(self) -> bool:
        """Whether it is a worker all whose pools are a tenant's own."""
        return self.role is Role.WORKER and all(split_key(pool)[0] for pool in self.pools)


def inbox_of(name: str) -> str:
    """The inbox of a user of this name."""
    return f"_INBOX_{name}"


def inbox_of_service(tenant: str, name: str) -> str:
    """The inbox of a worker that comes with a service token. No tenant is named `_`."""
    return f"_INBOX_SVC.{tenant or '_'}.{name}"


def access(user: User, partitions: int) -> Access:
    """What a user must be allowed in a log with so many partitions, and nothing else."""

    def subjects(rules: Iterable[Rule]) -> tuple[str, ...]:
        return tuple(subject for rule in rules for subject in expanded(rule.subject, user, partitions))

    return Access(
        subjects(rule for rule in RULES if user.role in rule.publish),
        subjects(rule for rule in RULES if user.role in rule.subscribe),
    )


def expanded(subject: str, user: User, partitions: int) -> Sequence[str]:
    """The subjects that a rule's stands for."""
    subject = subject.replace("<inbox>", user.inbox or inbox_of(user.role))
    if user.sessions and (narrowed := _of_sessions(subject, user, partitions)) is not None:
        return narrowed
    if "<S>" in subject:
        return [subject.replace("<S>", stream_name(number)) for number in range(partitions)]
    if subject == _JOBS and user.of_a_tenant:
        # What goes into others' pools, others' workers would do.
        return [f"work.{queue}.*.*.*" for queue in _queues(user.pools)]
    # A consumer's name is one token, for which a wildcard stands as a whole.
    for placeholder, keys_of in ((_POOL, list[str]), (_QUEUE, _queues)):
        if placeholder in subject:
            names = [ANY_POOL] if ANY_POOL in user.pools else map(pool_consumer, keys_of(user.pools))
            return [subject.replace(placeholder, name) for name in names]
    return [subject]


def _queues(pools: Iterable[str]) -> list[str]:
    """All that the pools may ever have: a user need not be made anew when they get more."""
    return [queue.key for pool in pools for queue in EVERY_QUEUE.queues(pool)]


def _of_sessions(subject: str, user: User, partitions: int) -> Sequence[str] | None:
    """A rule's subject for the user's sessions alone; None if it is about none."""
    if subject in NOT_OF_ONE_SESSION:
        return []
    places = [SessionSubjects.of(key, partitions) for key in user.sessions]
    lanes = user.lanes or (_ANY_LANE,)
    if "<S>" in subject:
        return [subject.replace("<S>", stream) for stream in sorted({place.stream for place in places})]
    match subject.split("."):
        case ["s", "*", "*", *rest, "*"]:
            return [".".join(("s", f"{at.partition:02d}", at.key, *rest, lane)) for at in places for lane in lanes]
        case ["c", *_] if user.lanes:
            # It is a state of the whole session.
            return []
        case ["s" | "c" | "pres" as kind, "*", "*", *rest]:
            return [".".join((kind, f"{place.partition:02d}", place.key, *rest)) for place in places]
        case ["live", ">"]:
            return [place.live for place in places]
        case ["work", *_]:
            queues = _queues(user.pools) if user.of_a_tenant else [ANY_POOL]
            return [place.job(queue, lane) for place in places for queue in queues for lane in lanes]
        case ["idx", kind, _, _]:
            return [f"idx.{kind}.*.{place.key}" for place in places]
        case ["att", ">"]:
            return [attachments_of(place.key) for place in places]
        case _:
            return None


def as_config(given: Access) -> Mapping[str, Any]:
    """The `permissions` of a user in the configuration of nats-server."""
    return {"publish": {"allow": list(given.publish)}, "subscribe": {"allow": list(given.subscribe)}}


def covers(pattern: str, subject: str) -> bool:
    """Whether all that `subject` (which may have wildcards itself) stands for is within `pattern`."""
    wanted = subject.split(".")
    for position, part in enumerate(parts := pattern.split(".")):
        if part == ">":
            return len(wanted) > position
        if position >= len(wanted) or wanted[position] == ">" or part not in ("*", wanted[position]):
            return False
    return len(parts) == len(wanted)


def overlap(one: str, other: str) -> bool:
    """Whether a subject is within both patterns."""
    ones, others = one.split("."), other.split(".")
    for a, b in zip(ones, others, strict=False):
        if ">" in (a, b):
            return True
        if "*" not in (a, b) and a != b:
            return False
    return len(ones) == len(others)
