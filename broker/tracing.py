"""W3C trace context (https://www.w3.org/TR/trace-context/): the trace that an entry belongs to. Pure.

What comes from outside and is malformed counts as absent, as the specification has it: a bad header must not keep a
request from being served.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

TRACESTATE_CHARS = 512
"""Characters of a `tracestate`; the specification asks for at least so many to be passed on."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x20-\x7e]*)?")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_MEMBERS_MAX = 32
_SAMPLED, _RANDOM = 0x01, 0x02
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span, by which others continue its trace. Ids are in small hexadecimal digits; `state` is a `tracestate`."""

    trace_id: str
    span_id: str
    flags: int = 0
    state: str | None = None

    @property
    def sampled(self) -> bool:
        """Whoever began the trace wants its spans recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """What to send along with a request, so that whoever serves it continues the trace."""
        found = {"traceparent": self.traceparent}
        return found if self.state is None else found | {"tracestate": self.state}

    def with_span(self, span_id: str) -> TraceContext:
        """Another span of the same trace."""
        return replace(self, span_id=span_id)


def begun(trace_id: str, span_id: str, *, sampled: bool) -> TraceContext:
    """The first span of a trace, with ids by chance."""
    return TraceContext(trace_id, span_id, _RANDOM | (_SAMPLED if sampled else 0))


def parse_context(traceparent: Any, tracestate: Any = None) -> TraceContext | None:
    """The context of a `traceparent` and its `tracestate`; None for one that is malformed, or absent.

    Flags that version 00 does not know are dropped. A malformed `tracestate` is dropped alone.
    """
    match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & (_SAMPLED | _RANDOM), _state(tracestate))


def _state(text: Any) -> str | None:
    if not isinstance(text, str) or not 0 < len(text) <= TRACESTATE_CHARS:
        return None
    members = [member for member in (part.strip(" \t") for part in text.split(",")) if member]
    if not members or len(members) > _MEMBERS_MAX or not all(_MEMBER.fullmatch(member) for member in members):
        return None
    return ",".join(members)


def is_trace_id(text: str) -> bool:
    return _TRACE_ID.fullmatch(text) is not None and text != _NO_TRACE
