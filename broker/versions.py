"""Which version this is, and which formats it speaks: what processes of different versions must agree on.

A reader takes what a newer writer adds (fields, event types, subjects that it does not know) for nothing, and keeps it.
What could not be read so would be a new log format, and a process does not touch a log of a newer one.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
PROTOCOL: Final = 1
"""Of the wire between gateways and clients (`docs/PROTOCOL.md`)."""
LOG_FORMAT: Final = 1
"""Of the log in JetStream, kept in it by `antiphon topology apply`: grows when older processes could not read or write it."""


def formats() -> dict[str, int]:
    """The formats by their names."""
    from broker import checkpoint  # not at import: `antiphon --version` needs no more than a line

    return {"protocol": PROTOCOL, "log": LOG_FORMAT, "checkpoint": checkpoint.VERSION}
