"""A run that asks for a human, and waits for somebody to come."""

from __future__ import annotations

import contextlib
from typing import NoReturn

from agent_worker.errors import NobodyCame
from agent_worker.scope import LaneScope
from broker.clock import now_ms
from broker.errors import Unavailable
from broker.events import HandoffExpired, HandoffRequested
from broker.state import SessionState


async def request(scope: LaneScope, event: HandoffRequested) -> None:
    """Asks, unless an earlier attempt of the run has, and lets the operators know. Raises NobodyCame, ContentTooLarge, LogError."""
    if event.handoff_id not in scope.state.handoffs:
        # Before: operators see it though this worker dies right after it has asked.
        await _note(scope, event)
        scope.record(event)
        await scope.stored()
    if event.handoff_id not in scope.state.handoffs:
        raise NobodyCame(event.to, "handoff_waits")
    # And after: a listing that came in between has found nothing here, and forgotten the note.
    await _note(scope, event)


async def _note(scope: LaneScope, event: HandoffRequested) -> None:
    with contextlib.suppress(Unavailable):  # the directory is an aid
        await scope.services.directory.note("handoff", event.to, scope.subjects.key, now_ms())


async def outcome(scope: LaneScope, event: HandoffRequested) -> NoReturn:
    """Waits until somebody takes the lane, and then for this task to be cancelled. Raises NobodyCame, LogError."""
    known = scope.state.handoffs[event.handoff_id]
    # Of an earlier attempt's request, the time it set counts.
    if await scope.until(lambda state: _settled(state, event.handoff_id), known.expires_at) is None:
        scope.writer.record(HandoffExpired(event.handoff_id))
        await scope.stored()
    known = scope.state.handoffs.get(event.handoff_id, known)
    if known.status != "expired":
        await scope.until(lambda _: None)
    with contextlib.suppress(Unavailable):
        await scope.services.directory.forget("handoff", event.to, scope.subjects.key)
    raise NobodyCame(event.to, "expired")


def _settled(state: SessionState, handoff_id: str) -> bool | None:
    known = state.handoffs.get(handoff_id)
    return True if known is None or known.status != "waiting" else None
