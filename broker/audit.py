"""The audit log: who did what to what, when, from where, and whether it was allowed. Never what anybody said. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import orjson

from broker import reading
from broker.errors import CodecError

ASKED = "asked"
"""The outcome of a record that is written before anything is done. The record of what came of it has the same `id`."""
DONE = "done"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One of the two records of an action. `ts` is in ms since 1970.

    `outcome` is `asked`, `done`, or the code with which it was refused. `by` is a user's id or, with `kind` `operator`,
    the account that ran a command beside the log; `address` is from where, as far as that is known; `process` which
    gateway carried it out. `target` is what it was done to: a session's name, or a few words.
    """

    id: str
    ts: int
    action: str
    target: str
    outcome: str
    kind: str
    by: str
    tenant: str = ""
    address: str = ""
    process: str = ""

    def encode(self) -> bytes:
        return orjson.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, body: bytes) -> AuditRecord:
        """Raises CodecError. Fields that are not known are ignored."""
        try:
            wire: dict[str, Any] = orjson.loads(body)
            names = [field.name for field in dataclasses.fields(cls) if field.name != "ts"]
            return cls(ts=reading.whole(wire["ts"]), **{name: reading.text(wire[name]) for name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise CodecError(f"this is no record of the audit log: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class Action:
    """What was asked for, and what came of it; `outcome` None: that is not known (yet)."""

    asked: AuditRecord
    outcome: str | None


def actions(records: list[AuditRecord]) -> list[Action]:
    """The actions of records in the order of the log. Outcomes whose beginning is not among them are left out."""
    outcomes = {record.id: record.outcome for record in records if record.outcome != ASKED}
    return [Action(record, outcomes.get(record.id)) for record in records if record.outcome == ASKED]
