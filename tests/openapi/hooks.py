"""What schemathesis must not ask for, or does not know from the document."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def filter_query(ctx: Any, query: dict[str, Any] | None) -> bool:
    """Not a stream, whose answer has no end: tests of our own read those."""
    return not query or query.get("format") != "sse"


@schemathesis.hook
def filter_body(ctx: Any, body: Any) -> bool:
    """As above."""
    return not isinstance(body, dict) or "stream" not in body


@schemathesis.hook
def filter_case(ctx: Any, case: Any) -> bool:
    """Not two names for one input: that a header and a body agree is nothing that OpenAPI can say."""
    return not (isinstance(case.body, dict) and "inputId" in case.body and "Idempotency-Key" in (case.headers or {}))
