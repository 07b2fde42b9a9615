"""What a session takes of its tenant's storage. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import orjson

from broker.errors import CodecError


@dataclass(frozen=True, slots=True)
class SessionUse:
    """`records` and `attachments` are bytes, the records those up to entry `seq`. `gone`: the session has been deleted,
    with its entry `seq`.
    """

    seq: int = 0
    records: int = 0
    attachments: int = 0
    gone: bool = False

    @property
    def total(self) -> int:
        return self.records + self.attachments

    def encode(self) -> bytes:
        wire: dict[str, Any] = {"seq": self.seq, "records": self.records, "attachments": self.attachments}
        return orjson.dumps(wire | ({"gone": True} if self.gone else {}))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Raises CodecError."""
        try:
            wire = orjson.loads(body)
            seq, records, attachments = (wire[name] for name in ("seq", "records", "attachments"))
            if not all(isinstance(n, int) and n >= 0 for n in (seq, records, attachments)):
                raise ValueError
            return cls(seq, records, attachments, gone=wire.get("gone") is True)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            raise CodecError("this is no usage of a session") from None
