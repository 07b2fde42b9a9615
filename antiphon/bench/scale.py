"""A model of large installations, fed with what benchmarks have measured: `antiphon bench scale`.

It multiplies; it knows nothing of queues. What one core and one connection cost is measured, how people use it is assumed
(`Usage`), and so is what could not be measured on one machine (`Assumed`). `checked` compares it with the benchmark `mix`,
which none of its costs come from. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.bench.mix import MIXES, Mix
from antiphon.bench.rows import OURS
from broker.errors import ConfigError

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
"""Connections."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured. CPU time in µs."""

    entry_us: float
    """Of a gateway, for an entry of a session that somebody reads there."""
    write_us: float
    """Of a gateway, for each of its readers."""
    join_us: float
    """Of a gateway, for a client that comes, or comes back."""
    connection_bytes: float
    session_bytes: float
    """Of a gateway's memory, for a session that is open there."""
    event_bytes: float
    """On a client's connection."""
    worker_us: float
    """Of a worker, for a token that is an entry of its own."""
    nats_us: float
    """Of a NATS server, for an entry that is stored and sent to one gateway."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How it is used."""

    readers: float = 1.5
    """Connections that read the same session; with many gateways, each at another one."""
    streaming: float = 0.05
    """Of the sessions, those in which an agent is speaking."""
    tokens_per_second: float = 30.0
    """Of one that is speaking; each an entry of its own."""
    joins_per_hour: float = 12.0
    """Of a connection: reloads, networks that change, sessions that are opened."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What was not measured here."""

    busy: float = 0.5
    """Share of a core that is planned with, so that peaks and a lost node have room."""
    replicas: int = 3
    """Servers that store each entry. Each of them is taken to cost as much as the one that was measured."""
    partition_per_second: float = 5_000.0
    """Entries that one stream takes with three replicas and each write synced: a leader writes one after another."""
    server_cores: int = 16
    """Cores of a NATS server. A cell is a NATS cluster of as many servers as there are replicas, with gateways and workers of
    its own; sessions are divided among cells by their tenant."""
    connections_of_gateway: int = 20_000
    """`ANTIPHON_CONNECTIONS`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a number of connections comes to, in all."""

    connections: int
    sessions: float
    lanes: float
    """That stream."""
    tokens_per_second: float
    gateways: int
    """Processes, of a core each."""
    gateway_bytes: float
    workers: int
    """Processes, of a core each."""
    nats_cores: float
    cells: int
    partitions: int
    """In each cell."""
    bits_per_second: float
    """To clients."""


def costs_of(rows: Sequence[Mapping[str, Any]]) -> Costs:
    """From the rows of benchmarks. Raises ConfigError if one is not there."""

    def of(bench: str, figure: str) -> float:
        for row in rows:
            if (row["name"], row["peer"]) == (bench, OURS) and figure in row:
                return float(row[figure])
        raise ConfigError(f"the costs have no `{figure}` of the benchmark `{bench}`: run it with --json")

    write_us = of("fanout", "sparse_cpu_us_per_event")
    shared, own = of("idle", "bytes_per_connection"), of("idle", "bytes_per_connection_with_own_session")
    # Ten connections share a session in the one, in the other each has its own.
    session_bytes = max(0.0, (own - shared) / 0.9)
    return Costs(
        entry_us=max(0.0, of("one-to-one", "cpu_us_per_event") - write_us),
        write_us=write_us,
        join_us=of("storm", "cpu_us_per_resume"),
        connection_bytes=own - session_bytes,
        session_bytes=session_bytes,
        event_bytes=of("one-to-one", "bytes_per_event"),
        worker_us=of("latency", "cpu_us_per_event_worker"),
        nats_us=of("one-to-one", "cpu_us_per_write_nats"),
    )


def token_us(costs: Costs, readers_here: float) -> float:
    """CPU time of a gateway for a token of a session with so many readers there."""
    return costs.entry_us + costs.write_us * readers_here


def plan(connections: int, costs: Costs, usage: Usage, assumed: Assumed) -> Plan:
    """What so many connections need."""
    sessions = connections / usage.readers
    lanes = sessions * usage.streaming
    tokens = lanes * usage.tokens_per_second
    # With many gateways the readers of a session are at different ones: each of them takes each entry.
    gateway_us = tokens * usage.readers * token_us(costs, 1) + connections * usage.joins_per_hour / 3600 * costs.join_us
    nats_us = tokens * costs.nats_us * (assumed.replicas + usage.readers - 1)
    nats_cores = nats_us / 1e6 / assumed.busy
    cells = max(1, math.ceil(nats_cores / (assumed.replicas * assumed.server_cores)))
    return Plan(
        connections=connections,
        sessions=sessions,
        lanes=lanes,
        tokens_per_second=tokens,
        gateways=max(
            math.ceil(gateway_us / 1e6 / assumed.busy), math.ceil(connections / assumed.connections_of_gateway)
        ),
        gateway_bytes=connections * (costs.connection_bytes + costs.session_bytes),
        workers=math.ceil(tokens * costs.worker_us / 1e6 / assumed.busy),
        nats_cores=nats_cores,
        cells=cells,
        partitions=_power_of_two(tokens / cells / assumed.partition_per_second / assumed.busy),
        bits_per_second=tokens * usage.readers * costs.event_bytes * 8,
    )


def _power_of_two(least: float) -> int:
    return max(4, 1 << math.ceil(math.log2(max(1.0, least))))


@dataclass(frozen=True, slots=True)
class Checked:
    """A prediction beside what was measured."""

    what: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured if self.measured else 0.0


def checked(rows: Sequence[Mapping[str, Any]], costs: Costs) -> list[Checked]:
    """The model beside the two sizes of the benchmark `mix`; empty if that was not run."""
    found = [row for row in rows if (row["name"], row["peer"]) == ("mix", OURS)]
    return [check for row in found for name, mix in MIXES.items() for check in _checked(row, name, mix, costs)]


def _checked(row: Mapping[str, Any], name: str, mix: Mix, costs: Costs) -> list[Checked]:
    memory = mix.connections * costs.connection_bytes + mix.sessions * costs.session_bytes
    of = f"{mix.connections:,} connections, {mix.sessions:,} sessions"
    return [
        Checked(
            f"{of}: CPU of the gateway, µs a token",
            token_us(costs, mix.readers_of_each),
            row[f"{name}_gateway_us_per_token"],
        ),
        Checked(f"{of}: CPU of NATS, µs a token", costs.nats_us, row[f"{name}_nats_us_per_token"]),
        Checked(f"{of}: memory of the gateway, MB", memory / 1e6, row[f"{name}_bytes"] / 1e6),
    ]


PLAN_HEAD = (
    *(
        "connections",
        "sessions",
        "lanes that stream",
        "tokens/s",
        "gateways (cores)",
        "their memory",
        "workers (cores)",
    ),
    *("NATS cores", "cells", "partitions each", "to clients"),
)


def plan_cells(planned: Plan) -> tuple[str, ...]:
    """A line of the table."""
    return (
        f"{planned.connections:,}",
        f"{planned.sessions:,.0f}",
        f"{planned.lanes:,.0f}",
        f"{planned.tokens_per_second:,.0f}",
        f"{planned.gateways:,}",
        f"{planned.gateway_bytes / 1e9:,.1f} GB",
        f"{planned.workers:,}",
        f"{planned.nats_cores:,.1f}",
        f"{planned.cells:,}",
        f"{planned.partitions:,}",
        f"{planned.bits_per_second / 1e9:,.2f} Gbit/s",
    )


def assumptions(costs: Costs, usage: Usage, assumed: Assumed) -> list[str]:
    """What stands behind a plan, in words."""
    spoken = f"in {usage.streaming:.0%} of the sessions an agent speaks, {usage.tokens_per_second:g} tokens a second"
    kept = f"a connection {costs.connection_bytes / 1024:.1f} KiB, a session {costs.session_bytes / 1024:.1f} KiB"
    stored = f"NATS takes {costs.nats_us:.1f} µs for an entry with one replica and one gateway"
    most = f"a partition takes {assumed.partition_per_second:,.0f} entries a second with {assumed.replicas} replicas"
    return [
        f"a session has {usage.readers:g} connections, each at another gateway; {spoken}, each an entry of its own",
        f"a connection joins {usage.joins_per_hour:g} times an hour, at {costs.join_us:,.0f} µs of a gateway",
        f"a gateway takes {costs.entry_us:.1f} µs for an entry and {costs.write_us:.1f} µs for each reader; {kept}",
        f"a worker takes {costs.worker_us:,.0f} µs for a token (measured where it has little to do, which is dear)",
        f"{stored}; each of {assumed.replicas} replicas and each further gateway costs as much again (not measured)",
        f"cores are {assumed.busy:.0%} busy; a NATS server has {assumed.server_cores}; {most} (not measured)",
        "a cell is a NATS cluster with gateways and workers of its own; sessions are divided among cells",
    ]
