"""`docker compose up`, and it answers; what is replaced or killed in it loses nothing. B22 and B28, in containers."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import pytest
from websockets.exceptions import InvalidHandshake

from tests.containers.conftest import NEXT_TAG
from tests.containers.project import Left, Project, run, stop
from tests.support.herd import Herd, share
from tests.support.place import Place
from tests.support.rawclient import Refusal, Wire, WireClosed, http_get, join

Figure = Callable[[str], None]

TOKENS, RATE = 30, 20
CLIENTS, HERD_SESSIONS = 2_000, 40
PEAK_PER_SECOND = 600
"""Two gateways let go of 200 each second, and this process may be late for some."""
DRAINING_CODE = 4200
_ON_ITS_WAY_S = 0.5
"""What was begun in the moment of the signal."""


async def test_a_conversation_through_the_proxy(project: Project) -> None:
    """The page comes, a token of the documented command is taken, and the agent answers."""
    status, page = await http_get(f"{project.url}/")
    assert status == 200
    loaded = re.findall(r'(?:src|href)="(web/[^"]+)"', page)
    assert loaded
    for path in loaded:
        assert (await http_get(f"{project.url}/{path}"))[0] == 200
    assert (await http_get(f"{project.url}/metrics"))[0] == 404
    made = project.compose("run", "--rm", "-T", "cli", "token", "me", "--secret-file", "/run/secrets/jwt_secret")
    place = Place("conversation")
    async with await Wire.open(project.url, made.strip()) as wire:
        await wire.subscribe(place)
        await wire.input(place.session, "i1", "say it through the proxy")
        await wire.follow(place, lambda p: "run_i1" in p.ended)
    assert place.ended == {"run_i1": "success"}
    assert place.answer("run_i1") == "say it through the proxy"
    assert place.whole


def test_every_container_is_confined(project: Project) -> None:
    """No privileges, nothing to write to but volumes; ours are not root, and say that they are well."""
    found = project.containers()
    assert {"gateway", "worker", "nats-1", "proxy", "prometheus"} <= {each.service for each in found}
    for each in found:
        host = each.inspect()["HostConfig"]
        assert host["ReadonlyRootfs"], each
        assert host["CapDrop"] == ["ALL"], each
        assert host["SecurityOpt"] == ["no-new-privileges:true"], each
        assert not host["Privileged"], each
        for bindings in (host["PortBindings"] or {}).values():
            assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"], each
    for each in (*project.containers("gateway"), *project.containers("worker")):
        assert each.inspect()["Config"]["User"] == "65532:65532"
        assert each.inspect()["State"]["Health"]["Status"] == "healthy"


async def test_prometheus_scrapes_everything_and_evaluates_every_rule(project: Project, figure: Figure) -> None:
    """All targets are up; no alert rule fails to be evaluated."""

    async def all_up() -> dict[str, int]:
        targets = (await project.asked("targets?state=active"))["activeTargets"]
        down = [target for target in targets if target["health"] != "up"]
        jobs = Counter(target["labels"]["job"] for target in targets)
        wanted = {"antiphon-gateway": 2, "antiphon-worker": 2, "haproxy": 1, "prometheus": 1}
        return dict(jobs) if not down and jobs == wanted else {}

    async def all_evaluated() -> list[str]:
        rules = [rule for group in (await project.asked("rules"))["groups"] for rule in group["rules"]]
        assert not [rule for rule in rules if rule["health"] == "err"], rules
        return [rule["name"] for rule in rules] if all(rule["health"] == "ok" for rule in rules) else []

    jobs = await project.until(all_up)
    names = await project.until(all_evaluated, wait_s=120)
    assert await project.value("sum(antiphon_gateway_connections)") is not None
    figure(f"{sum(jobs.values())} targets up, {len(names)} rules evaluated")


@pytest.mark.timeout(180)
async def test_workers_are_replaced_under_load(project: Project, figure: Figure) -> None:
    """B22: SIGTERM drains; no run is cut or taken over, and a worker that leaves starts none."""
    names = [f"shift-{i}" for i in range(16)]
    herd = _herd(project, names, 1, f"stream {TOKENS} tokens at {RATE}/s")
    left: list[Left] = []
    async with herd.living():
        for leaving in project.containers("worker"):
            await asyncio.to_thread(project.add, "worker", 1)
            left += await stop([leaving])
    assert [each.code for each in left] == [0, 0]
    said = sum(len(member.said) for member in herd.members)
    for member in herd.members:
        log = await _log(project, member.place.session)
        assert log.applied == member.said
        assert log.ended == {f"run_{input_id}": "success" for input_id in member.said}
        assert not _taken_over(log)
        assert all(log.answer(run) == _tokens(TOKENS) for run in log.started)
        assert member.place.whole
        assert not member.returns
    assert all(_claims(each) for each in left), "a worker had nothing to do"
    assert not [claim for each in left for claim in _claims_while_draining(each)]
    figure(f"2 workers replaced under {len(names)} sessions: {said} inputs, each answered once, 0 runs cut")


@pytest.mark.timeout(240)
async def test_gateways_are_updated_under_many_clients(project: Project, figure: Figure) -> None:
    """B28, with a new release: new ones come up, the old ones leave; each client moves once, at a pace."""
    names = [f"herd-{i}" for i in range(HERD_SESSIONS)]
    herd = _herd(project, names, CLIENTS // HERD_SESSIONS, "stream 8 tokens at 1/s")
    old = project.containers("gateway")
    project.tag = NEXT_TAG
    async with herd.living():
        new = await asyncio.to_thread(project.add, "gateway", len(old))

        async def seen() -> bool:
            return await project.value('haproxy_backend_active_servers{proxy="gateways"}') == len(old) + len(new)

        await project.until(seen)
        began = time.monotonic()
        left = await stop(old)
        took_s = time.monotonic() - began
    assert [each.code for each in left] == [0] * len(old)
    assert {each.inspect()["Config"]["Labels"]["org.opencontainers.image.revision"] for each in new} == {"next"}
    logs = {name: await _log(project, name) for name in names}
    for member in herd.members:
        assert [each.code for each in member.returns] == [DRAINING_CODE], member.place
        assert not member.refused
        _is_as_in_the_log(member.place, logs[member.place.session])
    for member in herd.members:
        if member.says:
            assert logs[member.place.session].applied == member.said
    # All of them within a second or two would be a storm.
    assert _peak(herd) <= PEAK_PER_SECOND
    away = [each.away_s for each in herd.returns]
    figure(
        f"2 gateways updated under {len(herd.members)} clients behind the proxy in {took_s:.1f} s: each came back once, "
        f"{_peak(herd):.0f}/s at most, away {share(away, 0.5):.2f} s at the median, {share(away, 0.99):.2f} s p99; "
        f"{herd.frames} entries, 0 lost, 0 twice, texts as in the log"
    )


@pytest.mark.timeout(180)
async def test_a_machine_is_lost(project: Project, figure: Figure) -> None:
    """Kill -9 of a NATS server, a gateway and a worker at once, in the middle of runs: all end whole."""
    names = [f"loss-{i}" for i in range(12)]
    for name in names:
        async with await Wire.open(project.url, project.token()) as wire:
            await wire.input(name, "i1", "stream 160 tokens at 20/s")
    places = {name: Place(name) for name in names}
    lost = [project.containers(service)[0] for service in ("nats-1", "gateway", "worker")]
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(_read_to_the_end(project, place)) for place in places.values()]
        while not all(place.texts for place in places.values()):
            await asyncio.sleep(0.05)
        began = time.monotonic()
        await run("kill", *(each.id for each in lost))
    returns = sum(task.result() for task in reading)
    for name, place in places.items():
        log = await _log(project, name)
        assert log.answer("run_i1") == _tokens(160)
        assert place.answer("run_i1") == log.answer("run_i1")
        assert place.lost == place.twice == 0
        assert log.ended == {"run_i1": "success"}
    figure(
        f"a NATS server, a gateway and a worker killed under {len(names)} runs: all ended whole "
        f"{time.monotonic() - began:.1f} s later, {returns} reconnects, texts as in the log"
    )


# --- what they share ---------------------------------------------------------------------------------------------------


def _herd(project: Project, names: list[str], each: int, says: str) -> Herd:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return Herd.of(names, each, says, project.token, lambda: project.url, seed)


async def _log(project: Project, name: str) -> Place:
    """Everything that the log holds of a session."""
    log = Place(name, every=True, frames=[])
    await join(project.url, project.token(), log)
    assert log.whole, log
    return log


async def _read_to_the_end(project: Project, place: Place) -> int:
    """Reads on, whatever happens to the connection, until the run has ended; how often it came back."""
    returns = -1
    while "run_i1" not in place.ended:
        returns += 1
        try:
            async with await Wire.open(project.url, project.token()) as wire:
                await wire.subscribe(place)
                await wire.follow(place, lambda p: "run_i1" in p.ended, wait_s=120)
        except (WireClosed, Refusal, InvalidHandshake, OSError):
            await asyncio.sleep(random.uniform(0.1, 0.5))
    return returns


def _is_as_in_the_log(place: Place, log: Place) -> None:
    assert place.whole, place
    assert set(place.entries) <= set(log.entries)
    assert {id_: str(text) for id_, text in place.texts.items()} == {id_: str(log.texts[id_]) for id_ in place.texts}


def _taken_over(log: Place) -> int:
    return sum(event["type"] == "run.taken_over" for frame in log.frames or () for event in frame["events"])


def _tokens(count: int) -> str:
    return "".join(f"t{i} " for i in range(count))


def _claims(worker: Left) -> list[float]:
    """When it claimed lanes, in seconds since 1970."""
    return [_at(line) for line in worker.logged if line["event"] == "lane claimed"]


def _claims_while_draining(worker: Left) -> list[float]:
    told = next(_at(line) for line in worker.logged if line["event"] == "draining")
    return [at for at in _claims(worker) if at > told + _ON_ITS_WAY_S]


def _at(line: dict[str, str]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def _peak(herd: Herd, window_s: float = 2.0) -> float:
    """The most clients that came back within such a time, a second."""
    times = sorted(each.back for each in herd.returns)
    return max(sum(since <= at < since + window_s for at in times) / window_s for since in times)
