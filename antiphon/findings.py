"""What `antiphon doctor` makes of what it has seen of a cluster. Pure: answers of NATS in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.drains import Drain
from broker.permissions import Access, Role
from broker.replicas import is_away
from broker.subjects import queue_of_consumer, split_queue
from broker.workers import WorkerNotice, WorkerState, said_version

VERSION_NEEDED: Final = (2, 11)
"""The first nats-server in which a message may have a time to live of its own."""
VERSION_TESTED: Final = (2, 15)
PAYLOAD_NEEDED: Final = 1 << 20
"""Records and checkpoints stay just below."""
SKEW_NOTE_S, SKEW_FAIL_S = 1.0, 5.0
SILENT_S: Final = 5.0
"""A leader hears from its followers every second."""
LAG_NOTE: Final = 1_000
"""Writes that a follower may be behind its leader without a word."""
FULL_NOTE, FULL_FAIL = 0.8, 0.95
_NS = 1_000_000_000
_SYNC_S_MAX = 1.0

Info = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend` is empty if it is well; `needed`: something does not work until it is mended."""

    what: str
    mend: str = ""
    needed: bool = True

    @property
    def status(self) -> str:
        """ok, note or fail."""
        return "ok" if not self.mend else "fail" if self.needed else "note"


def worst(what: str, fails: Sequence[str], notes: Sequence[str]) -> Finding:
    """One finding for a thing of which much may be said."""
    return Finding(what, "; ".join([*fails, *notes]), needed=bool(fails))


def server(info: Info) -> Finding:
    """The server that we are connected to, by what it said at first."""
    name, version = info.get("server_name", "?"), str(info.get("version", "0"))
    number = _number(version)
    fails, notes = [], []
    if number < VERSION_NEEDED:
        fails.append(f"Antiphon needs nats-server {_dotted(VERSION_NEEDED)} or newer")
    elif number < VERSION_TESTED:
        notes.append(f"Antiphon is tested with nats-server {_dotted(VERSION_TESTED)}")
    if not info.get("jetstream"):
        fails.append("turn JetStream on (`jetstream {}` in its configuration)")
    if int(info.get("max_payload", 0)) < PAYLOAD_NEEDED:
        fails.append(f"set max_payload to {PAYLOAD_NEEDED} bytes or more")
    where = (
        f" of cluster {info['cluster']}, {len(info.get('connect_urls') or ())} servers known"
        if info.get("cluster")
        else ""
    )
    return worst(f"server {name} {version}{where}", fails, notes)


def user(name: str, role: Role, lacks: str, may: Access) -> Finding:
    """What the user of NATS may do that we are: all that its role needs, and not what nobody may."""
    what = f"user of NATS: {name}, as {role}"
    notes = ["it may publish live.>, which is the servers' alone: give it a role"] if may.may_publish("live.>") else []
    return worst(what, [lacks] if lacks else [], notes)


def account(info: Info) -> Finding:
    """Storage and limits of the account."""
    used, limit = int(info.get("storage", 0)), int(info.get("limits", {}).get("max_storage", -1))
    what = f"account: {_gib(used)} stored"
    if limit <= 0:
        return Finding(f"{what}, no limit of its own")
    share, mend = used / limit, "raise the account's max_storage, or keep deltas for a shorter time"
    return Finding(f"{what} of {_gib(limit)}", mend if share > FULL_NOTE else "", needed=share > FULL_FAIL)


def stream(info: Info) -> Finding:
    """A stream: its leader, its followers, how full it is."""
    config, state, cluster = info["config"], info["state"], info.get("cluster") or {}
    copies = int(config.get("num_replicas", 1))
    fails, notes = [], []
    if cluster and not cluster.get("leader"):
        fails.append("it has no leader: start the servers that are missing")
    for replica in cluster.get("replicas") or ():
        if is_away(replica, SILENT_S):
            fails.append(f"its copy on {replica['name']} is away: start that server, or mend the network to it")
        elif not replica.get("current") and int(replica.get("lag", 0)) > LAG_NOTE:
            notes.append(
                f"its copy on {replica['name']} is {replica['lag']} writes behind: wait, or look at that server's disk"
            )
    limit = int(config.get("max_bytes", -1))
    if limit > 0 and int(state["bytes"]) > FULL_NOTE * limit:
        fails.append(f"it holds {_gib(int(state['bytes']))} of {_gib(limit)}: raise its max_bytes")
    leader = f", led by {cluster['leader']}" if cluster.get("leader") else ""
    return worst(
        f"stream {config['name']}: {state['messages']} messages, {_gib(int(state['bytes']))}, "
        f"{copies} {'copy' if copies == 1 else 'copies'}{leader}",
        fails,
        notes,
    )


def copies(infos: Sequence[Info], clustered: bool) -> Finding:
    """How many copies there are of each stream, taken together."""
    found = sorted({int(info["config"].get("num_replicas", 1)) for info in infos})
    what = f"copies of streams: {', '.join(map(str, found))}"
    if len(found) > 1:
        return Finding(what, "they differ: run `antiphon topology apply` with one ANTIPHON_REPLICAS")
    if found == [1] and clustered:
        return Finding(what, "a server that is lost takes its streams along: set ANTIPHON_REPLICAS=3", needed=False)
    return Finding(what)


def by_pool(infos: Iterable[Info]) -> list[dict[str, Any]]:
    """The consumers of each pool's queues taken together. A worker asks at all of them."""
    pools: dict[str, dict[str, Any]] = {}
    for info in infos:
        pool, _, _ = split_queue(str(info["name"]))
        one = pools.setdefault(pool, {"name": pool, "num_pending": 0, "num_ack_pending": 0, "num_waiting": 0})
        for count in ("num_pending", "num_ack_pending", "num_redelivered"):
            one[count] = one.get(count, 0) + int(info.get(count, 0))
        one["num_waiting"] = max(one["num_waiting"], int(info["num_waiting"]))
    return [*pools.values()]


def pool(info: Info) -> Finding:
    """A pool's consumers, taken together: jobs that wait, and workers that ask for them."""
    name = queue_of_consumer(str(info["name"]))
    waiting, leased, asking = int(info["num_pending"]), int(info["num_ack_pending"]), int(info["num_waiting"])
    fails, notes = [], []
    if not is_served(info):
        fails.append(f"no worker asks for its jobs: start one (`antiphon worker … --pool {name}`)")
    elif waiting and not asking:
        notes.append("all workers are busy: add workers, or raise ANTIPHON_CONCURRENCY")
    if again := int(info.get("num_redelivered", 0)):
        notes.append(f"{again} jobs came again: workers were lost, or leases were not renewed")
    return worst(f"pool {name}: {waiting} jobs wait, {leased} leased, {asking} requests of workers", fails, notes)


def is_served(info: Info) -> bool:
    """A worker of the pool asks for jobs, or is at one."""
    return bool(info["num_waiting"] or info["num_ack_pending"])


def workers(notices: Sequence[WorkerNotice]) -> Iterator[Finding]:
    """Workers that answer, for each pool: of which versions, and whether they take jobs."""
    for pool in sorted({notice.pool for notice in notices}):
        counts: dict[tuple[str, str], int] = {}
        for notice in notices:
            if notice.pool == pool:
                key = said_version(notice.version), str(notice.state)
                counts[key] = counts.get(key, 0) + 1
        said = (f"{count} of version {version} {state}" for (version, state), count in sorted(counts.items()))
        yield Finding(f"workers of pool {pool}: {', '.join(said)}")


def drain(one: Drain, notices: Sequence[WorkerNotice]) -> Finding:
    """A version that is drained, and what is left to do."""
    mine = [notice for notice in notices if one.is_of(notice.pool, notice.version)]
    what = f"drained: version {said_version(one.version)} of pool {one.pool}, {len(mine)} workers"
    back = f"`antiphon workers undrain --pool {one.pool} --version {said_version(one.version)}`"
    if not mine:
        return Finding(what, f"none is there, and one that starts takes no jobs: {back} if it is over", needed=False)
    if all(notice.state is WorkerState.DRAINED for notice in mine):
        return Finding(what, f"they have nothing left: end them, or {back}", needed=False)
    return Finding(what)


def only_drained(info: Info, notices: Sequence[WorkerNotice]) -> Iterator[Finding]:
    """A pool, by its consumer, whose workers are all of drained versions."""
    name, waiting = queue_of_consumer(str(info["name"])), int(info["num_pending"])
    mine = [notice for notice in notices if notice.pool == name and notice.state is not WorkerState.LEAVING]
    taking = info["num_waiting"] or any(notice.state is WorkerState.TAKING for notice in mine)
    if mine and not taking:
        yield Finding(
            f"pool {name}: {waiting} jobs wait, and all {len(mine)} workers are of drained versions",
            f"start workers of another version, or `antiphon workers undrain --pool {name}`",
            needed=waiting > 0,
        )


def orphans(subjects: Mapping[str, int], pools: Sequence[str]) -> Iterator[Finding]:
    """Jobs for pools that nobody has made."""
    counts: dict[str, int] = {}
    for subject, count in subjects.items():
        name = subject.split(".")[1]
        if name not in pools:
            counts[name] = counts.get(name, 0) + count
    for name, count in sorted(counts.items()):
        yield Finding(
            f"pool {name}: {count} jobs wait",
            "nobody has made it: name it in ANTIPHON_POOLS for `antiphon topology apply`",
        )


def gateways(heard: Mapping[str, str], seconds: float) -> Finding:
    """Gateways that were heard, with their versions."""
    if not heard:
        mend = "none runs here, or this user may not subscribe to gw.>"
        return Finding(f"gateways: none heard within {seconds:g} s", mend, needed=False)
    versions = sorted(set(heard.values()))
    what = f"gateways: {len(heard)}, of version {', '.join(versions)}"
    mend = "an upgrade is going on, or was not finished: restart the older ones" if len(versions) > 1 else ""
    return Finding(what, mend, needed=False)


def clocks(skews: Mapping[str, float]) -> Finding:
    """How far the servers' clocks are from ours, by server, in seconds."""
    name, skew = max(skews.items(), key=lambda item: abs(item[1]), default=("", 0.0))
    what = f"clocks: at most {abs(skew):.1f} s apart" + (f" ({name})" if abs(skew) > SKEW_NOTE_S else "")
    mend = "let all hosts take their time from NTP: tokens, deadlines and times to live go by it"
    return Finding(what, mend if abs(skew) > SKEW_NOTE_S else "", needed=abs(skew) > SKEW_FAIL_S)


def monitored(varz: Info, replicas: int) -> Finding:
    """A server, by its monitoring port: what clients cannot see."""
    jetstream = varz.get("jetstream") or {}
    config, stats = jetstream.get("config") or {}, jetstream.get("stats") or {}
    fails: list[str] = []
    notes: list[str] = []
    always = bool(config.get("sync_always"))
    sync_s = int(config.get("sync_interval", 0)) / _NS
    if replicas > 1 and not always and sync_s > _SYNC_S_MAX:
        notes.append(
            f"sync_interval is {sync_s:g} s: a power cut of all servers loses as much; set `sync_interval: always`"
        )
    used, limit = int(stats.get("storage", 0)), int(config.get("max_storage", 0))
    if limit and used > FULL_NOTE * limit:
        (fails if used > FULL_FAIL * limit else notes).append("make room, or raise its max_file_store")
    if slow := int(varz.get("slow_consumers", 0)):
        notes.append(f"{slow} slow consumers since it started: a process could not keep up")
    synced = "always" if always else f"every {sync_s:g} s"
    what = f"server {varz.get('server_name', '?')}: {_gib(used)} of {_gib(limit)} stored, synced {synced}"
    return worst(what, fails, notes)


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"


def _number(version: str) -> tuple[int, ...]:
    parts = version.split("-", maxsplit=1)[0].split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
