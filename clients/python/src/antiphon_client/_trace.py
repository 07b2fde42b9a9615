"""The trace that a command belongs to (W3C trace context; PROTOCOL, section 4)."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ._json import JsonObject, as_str


def current() -> dict[str, str]:
    """The headers of the caller's OpenTelemetry span; empty without one, or where OpenTelemetry is not in use.

    It is asked only if the program has imported it: this package does not need it.
    """
    api = sys.modules.get("opentelemetry.trace")
    span = None if api is None else api.get_current_span().get_span_context()
    if span is None or not span.is_valid:
        return {}
    found = {"traceparent": f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"}
    state = span.trace_state.to_header() if span.trace_state else ""
    return found | {"tracestate": state} if state else found


def headers_of(frame: JsonObject) -> Mapping[str, str]:
    """The headers in an entry or a reply, as they may be sent along with requests; empty without."""
    found = {name: as_str(frame.get(name)) for name in ("traceparent", "tracestate")}
    return {name: value for name, value in found.items() if value is not None}
