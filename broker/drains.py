"""Drains: which versions of agents take no more jobs of a pool, because an operator has said so. Pure.

All that are in force are one record, so that whoever reads it knows them all, and a change is one write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from broker import reading
from broker.errors import CodecError, ConfigError

DRAINS_MAX: Final = 256
"""In force at once; each takes some 100 bytes of the record."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Workers of `pool` (its key) that say they run `version` ("": that say nothing of it) take none of its jobs.

    `since` and `until` are in ms since 1970; `until` 0: for as long as nobody takes it back. `finish`: what they have
    stays theirs until it ends; else it is handed over after their drain time.
    """

    pool: str
    version: str
    since: int
    until: int = 0
    finish: bool = False

    def in_force(self, now_ms: int) -> bool:
        return not self.until or now_ms < self.until

    def is_of(self, pool: str, version: str) -> bool:
        return (self.pool, self.version) == (pool, version)


def encode_drains(drains: Sequence[Drain]) -> bytes:
    return orjson.dumps({"drains": [dataclasses.asdict(drain) for drain in drains]})


def decode_drains(body: bytes) -> tuple[Drain, ...]:
    """Raises CodecError. Fields that are not known are ignored."""
    try:
        wire: dict[str, Any] = orjson.loads(body)
        return tuple(
            Drain(
                reading.text(each["pool"]),
                reading.text(each["version"]),
                reading.whole(each["since"]),
                reading.whole(each["until"]),
                reading.flag(each["finish"]),
            )
            for each in wire["drains"]
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CodecError(f"this says of no drains: {type(error).__name__}") from None


def drain_of(drains: Iterable[Drain], pool: str, version: str, now_ms: int) -> Drain | None:
    """The one that is in force for workers of that version."""
    return next((each for each in drains if each.is_of(pool, version) and each.in_force(now_ms)), None)


def with_drain(drains: Iterable[Drain], drain: Drain) -> tuple[Drain, ...]:
    """Those in force when `drain` begins, and it, in place of an earlier one of the same version. Raises ConfigError."""
    kept = without_drain(drains, drain.pool, drain.version, drain.since)
    if len(kept) >= DRAINS_MAX:
        raise ConfigError(f"{DRAINS_MAX} versions are drained already: take some back (`antiphon workers undrain`)")
    return (*kept, drain)


def without_drain(drains: Iterable[Drain], pool: str, version: str, now_ms: int) -> tuple[Drain, ...]:
    """Those that are in force, but the one of that version."""
    return tuple(each for each in drains if each.in_force(now_ms) and not each.is_of(pool, version))
