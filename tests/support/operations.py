"""What may be tried at a NATS server, so that what is refused can be seen: subjects, and operations of JetStream's API."""

from __future__ import annotations

from collections.abc import Iterator

from broker.permissions import RULES, Access, Role, User, access, expanded

PARTITIONS = 2
POOLS = ("default", "other")
USERS = {
    "provisioner": User(Role.PROVISIONER, POOLS),
    "gateway": User(Role.GATEWAY, POOLS),
    "worker": User(Role.WORKER, ("default",)),
    "worker-other": User(Role.WORKER, ("other",), "_INBOX_worker-other"),
    "webhooks": User(Role.WEBHOOKS, POOLS),
    "observer": User(Role.OBSERVER, POOLS),
    "callout": User(Role.CALLOUT, POOLS),
}
"""A user of each role, and a second worker, of another pool."""

STREAM_OPERATIONS = (
    *("CREATE", "UPDATE", "INFO", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.GET", "MSG.DELETE"),
    *("PEER.REMOVE", "LEADER.STEPDOWN"),
)
CONSUMER_OPERATIONS = (
    *("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "PAUSE", "LEADER.STEPDOWN", "MSG.NEXT", "UNPIN", "RESET"),
)
OTHER_OPERATIONS = (
    *("INFO", "STREAM.NAMES", "STREAM.LIST", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.X"),
    *("ACCOUNT.STREAM.MOVE.X.S00", "STREAM.TEMPLATE.NAMES"),
)
"""Of nats-server 2.15 (`server/jetstream_api.go`)."""
STREAMS = ("S00", "S01", "ANTIPHON_META", "INDEX", "HOOKS", "WORK", "KV_other", "OBJ_other")
"""Ours, and such as another application has in the same account."""
FOREIGN = (
    *("live.00.probe.r.in", "live.00.probe.d.main", "$KV.other.key", "$O.other.C.x", "other.subject", "s", "c.00"),
    *("s.00.probe", "s.00.probe.r", "s.00.probe.r.in.x", "s.00.probe.r.ev", "s.00.probe.d.main.x", "s.00.probe.x.main"),
    *("work.default", "work.default.00.probe.main.x", "idx.other.x.probe", "pres.00.probe.x", "gw.x.y"),
    *("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.ACCOUNT.X.CONNECT", "$JS.API.CONSUMER.LIST.S00"),
    *("$JS.ACK.S00.x.1.1.1.1.0", "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.S00", "_INBOX.x", "_INBOX_stranger.x"),
)


def sample(subject: str) -> str:
    """A subject without wildcards that a rule's, expanded, stands for."""
    parts = subject.split(".")
    if parts[0] in ("s", "c", "pres", "live"):
        parts[1] = "00" if parts[1] == "*" else parts[1]
    if parts[0] == "work":
        parts[1:3] = ["default", "00"]
    parts = ["probe" if part == "*" else "00.probe.r.in" if part == ">" else part for part in parts]
    return ".".join(parts)


def subjects() -> list[str]:
    """One subject of each kind that there is, each once: of all rules for all users, of all of the API, and foreign ones."""
    found: dict[str, None] = {}
    for rule in RULES:
        for user in USERS.values():
            found |= dict.fromkeys(sample(subject) for subject in expanded(rule.subject, user, PARTITIONS))
    return [*(found | dict.fromkeys([*_api(), *FOREIGN]))]


def _api() -> Iterator[str]:
    yield from (f"$JS.API.{operation}" for operation in OTHER_OPERATIONS)
    for stream in STREAMS:
        yield from (f"$JS.API.STREAM.{operation}.{stream}" for operation in STREAM_OPERATIONS)
        yield f"$JS.API.DIRECT.GET.{stream}"
        yield f"$JS.API.DIRECT.GET.{stream}.s.00.probe.r.in"
        yield f"$JS.API.CONSUMER.CREATE.{stream}"
        yield from (f"$JS.API.CONSUMER.{operation}.{stream}" for operation in ("LIST", "NAMES"))
        for pool in POOLS:
            yield from (f"$JS.API.CONSUMER.{operation}.{stream}.pool-{pool}" for operation in CONSUMER_OPERATIONS)
            yield f"$JS.API.CONSUMER.CREATE.{stream}.pool-{pool}.work.{pool}.x"
            yield f"$JS.ACK.{stream}.pool-{pool}.1.1.1.1.0"


def accepted(given: Access, pattern: str) -> bool:
    """Whether the server takes a subscription. To it a `*` at the end stands for `>` as well: nothing of ours is deeper."""
    return given.may_subscribe(pattern) or (
        pattern.endswith(".>") and given.may_subscribe(pattern.removesuffix(">") + "*")
    )


def patterns() -> list[str]:
    """What may be subscribed to: each kind of subject, as a rule has it and alone, and everything at once."""
    wide = (">", "*", "*.>", "s.>", "c.>", "work.>", "idx.>", "pres.>", "gw.>", "$JS.>", "$JS.API.>", "$JS.ACK.>")
    inboxes = ("_INBOX.>", "$SYS.>", "$JS.EVENT.>", "$KV.>", "$O.>", "*.*.*.r.in")
    allowed = [pattern for user in USERS.values() for pattern in access(user, PARTITIONS).subscribe]
    return [*dict.fromkeys([*wide, *inboxes, *allowed, *subjects()])]
