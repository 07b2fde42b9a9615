"""What `antiphon doctor` makes of what it has seen of a cluster. Pure: answers of NATS in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.replicas import is_away

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


def pool(info: Info) -> Finding:
    """A pool's consumer: jobs that wait, and workers that ask for them."""
    name = str(info["name"]).removeprefix("pool-")
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
