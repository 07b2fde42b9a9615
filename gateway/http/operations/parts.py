"""What several operations have in common. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import Parameter
from gateway.http.problems import HttpCode

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", s.CLIENT_ID, "the `inputId`; one that is sent again counts once", place="header"
)
CURSOR_REFUSALS = (ErrorCode.CURSOR_BAD, ErrorCode.CURSOR_EPOCH, ErrorCode.CURSOR_FUTURE)
NO_ROOM = (HttpCode.DRAINING, HttpCode.OVERLOADED, ErrorCode.TOO_MANY_CONNECTIONS)
QUOTA = (ErrorCode.TOO_MANY_SESSIONS, ErrorCode.STORAGE_FULL)
"""Of what may begin a session, and what is stored in it."""
LOCATION = (("Location", "where it is"),)
