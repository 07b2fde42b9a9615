"""The operations of the HTTP API, each declared once: they are routed, checked and documented from here. Pure."""

from __future__ import annotations

from gateway.http.declarations import JSON, Operation
from gateway.http.operations.administration import ADMINISTRATION
from gateway.http.operations.agui import AGUI
from gateway.http.operations.attachments import ATTACHMENTS
from gateway.http.operations.chats import CHATS
from gateway.http.operations.people import INPUTS, PEOPLE, TOOLS
from gateway.http.operations.reading import PAGE_DEFAULT, READING
from gateway.http.operations.runs import BATCH_MAX, RUNS
from gateway.http.operations.sessions import SESSIONS

__all__ = ["ACCEPTED_BODIES", "BATCH_MAX", "OPERATIONS", "PAGE_DEFAULT"]

OPERATIONS: tuple[Operation, ...] = (
    *RUNS,
    *SESSIONS,
    *READING,
    *INPUTS,
    *ATTACHMENTS,
    *TOOLS,
    *PEOPLE,
    *CHATS,
    *AGUI,
    *ADMINISTRATION,
)
ACCEPTED_BODIES = (JSON, "application/merge-patch+json")
