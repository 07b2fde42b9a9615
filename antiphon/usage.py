"""`antiphon usage`: what models have cost, by the log: the usage events of runs, summed. It speaks to NATS alone.

Prometheus has the same sums (`antiphon_worker_model_tokens_total`) at any moment, but not by tenant, which may be many.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from agent_worker.using_models import USAGE_EVENT
from antiphon.processes import BrokerSettings, reached
from broker.errors import ConfigError
from broker.events import Entry, OtherEvent
from broker.jetstream.catalogue import events_since
from broker.jetstream.connection import Connection
from broker.jetstream.topology import stored_partitions
from broker.loading import entry_of
from broker.subjects import session_of, split_key

GROUPS: Final = ("tenant", "agent", "day", "version", "provider", "model", "session")
"""What sums may be of; `version` is the label that a worker names, `session` a session's key."""
ROWS_MAX: Final = 100_000
_DAY_S: Final = 86_400
_MARK: Final = USAGE_EVENT.encode()


@dataclass(slots=True)
class Spent:
    """Tokens of calls of models. Cached ones are a part of those that went in, reasoning a part of those that came out."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, told: Mapping[str, Any]) -> None:
        """One call, as its event tells of it."""
        self.calls += 1
        for each in fields(self)[1:]:
            value = told.get(_camel(each.name))
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                setattr(self, each.name, getattr(self, each.name) + value)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sums `by` some of GROUPS, of the last `days` days of UTC, today's among them, of a tenant (None: of all)."""

    by: tuple[str, ...]
    days: int
    tenant: str | None = None

    def since_ms(self, now_s: float) -> int:
        return (int(now_s) // _DAY_S - self.days + 1) * _DAY_S * 1000


class Tally:
    """Sums, by what is wanted."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self._by = by
        self.found: dict[tuple[str, ...], Spent] = {}

    def take(self, session: str, entry: Entry) -> None:
        """Raises ConfigError if there are more rows than a table may have."""
        for event in entry.events:
            if isinstance(event, OtherEvent) and event.body.get("name") == USAGE_EVENT:
                told = event.body.get("value")
                if isinstance(told, dict):
                    self._put(session, entry, told)

    def _put(self, session: str, entry: Entry, told: Mapping[str, Any]) -> None:
        known = {
            "tenant": split_key(session)[0] or "-",
            "agent": entry.by.id if entry.by is not None else "",
            "day": time.strftime("%Y-%m-%d", time.gmtime(entry.ts / 1000)),
            "version": (entry.by.version if entry.by is not None else None) or "-",
            "provider": str(told.get("provider", "")),
            "model": str(told.get("model", "")),
            "session": session,
        }
        key = tuple(known[name] for name in self._by)
        if key not in self.found and len(self.found) >= ROWS_MAX:
            raise ConfigError(f"more than {ROWS_MAX} rows: sum by less (--by), or over fewer days")
        self.found.setdefault(key, Spent()).add(told)


async def usage(broker: BrokerSettings, wanted: Wanted, *, as_json: bool) -> int:
    """Prints a row for each sum, in order. Returns 0. Raises ConfigError, TopologyError, Unavailable."""
    since_ms, tally = wanted.since_ms(time.time()), Tally(wanted.by)
    async with Connection(broker.nats, name="antiphon-usage") as connection:
        await reached(connection)
        for partition in range(await stored_partitions(connection) or 0):
            async for stored in events_since(connection, partition, since_ms):
                session = session_of(stored.subject)
                if _MARK not in stored.body or wanted.tenant not in (None, split_key(session)[0]):
                    continue
                entry = entry_of(stored)
                if entry is not None and entry.ts >= since_ms:
                    tally.take(session, entry)
    rows = sorted(tally.found.items())
    for key, spent in rows:
        if as_json:
            print(json.dumps(dict(zip(wanted.by, key, strict=True)) | asdict(spent)))
    if not as_json:
        for line in _table(wanted.by, rows):
            print(line)
    return 0


def _table(by: Sequence[str], rows: Sequence[tuple[tuple[str, ...], Spent]]) -> list[str]:
    numbers = [each.name.removesuffix("_tokens") for each in fields(Spent)]
    cells = [[*by, *numbers], *([*key, *map(str, asdict(spent).values())] for key, spent in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < len(by) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
