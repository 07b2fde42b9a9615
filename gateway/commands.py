"""What commands do: checks against the folded state, one append, and the answer that the log gives.

The log decides. What a participant sends is stored first, then folded, and the reply says what the fold made of it,
so that every gateway and every client comes to the same verdict.
"""

from __future__ import annotations

import time
from typing import Any

from broker.errors import ErrorCode, Refused
from broker.events import Entry, Event, InputCancelRequested, InputSent, Participant, RunCancelRequested
from broker.interfaces import JobQueue, SessionLog, Stored
from broker.loading import read_messages
from broker.session_config import MAX_QUEUE
from broker.state import SessionState
from broker.subjects import MAIN_LANE, run_id_of
from broker.transcript import Message
from gateway.auth import Identity, Right
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.protocol import History, InputCancel, InputSend, RunCancel

_HISTORY_BYTES = 8 << 20
"""Text that one `history` reply may add up to; fewer messages are returned beyond it, at least one."""


class Commands:
    """Carries out the commands of participants. One for a gateway."""

    def __init__(
        self, hub: Hub, log: SessionLog, jobs: JobQueue, settings: GatewaySettings, metrics: GatewayMetrics
    ) -> None:
        self._hub = hub
        self._log = log
        self._jobs = jobs
        self._settings = settings
        self._metrics = metrics

    async def input_send(self, command: InputSend, who: Identity) -> dict[str, Any]:
        """Raises Refused, Unavailable."""
        who.require(Right.SEND, command.session)
        size = len(command.content.encode())
        if size > self._settings.input_bytes:
            raise Refused(
                ErrorCode.CONTENT_TOO_LARGE,
                f"the content has {size} bytes, the limit is {self._settings.input_bytes}",
                limit=self._settings.input_bytes,
            )
        async with self._hub.session(command.session) as feed:
            await feed.ready()
            known = command.input_id in feed.state.seen
            if not known:
                _refuse_full_queue(feed.state)
                stored = await self._append(
                    feed, InputSent(command.input_id, command.content, command.mode), who, command.input_id
                )
                await self._jobs.offer(feed.subjects, MAIN_LANE)
                await feed.reached(stored.seq)
                known = stored.duplicate or _stored_earlier(feed.state, command.input_id, stored.seq)
            elif _unfinished(feed.state, command.input_id):
                await self._jobs.offer(feed.subjects, MAIN_LANE)
            self._metrics.inputs.labels("duplicate" if known else "new").inc()
            return _input_receipt(feed.state, command.input_id, duplicate=known)

    async def input_cancel(self, command: InputCancel, who: Identity) -> dict[str, Any]:
        """Raises Refused, Unavailable."""
        who.require(Right.SEND, command.session)
        async with self._hub.session(command.session) as feed:
            await feed.ready()
            queued = feed.state.queued(command.input_id)
            if queued is not None:
                if (queued.by is None or queued.by.id != who.id) and not who.may(Right.ADMIN, command.session):
                    raise Refused(
                        ErrorCode.NOT_ALLOWED,
                        "only its sender or an admin may take an input back",
                        right=Right.ADMIN.value,
                    )
                event = InputCancelRequested(command.input_id)
                await feed.reached((await self._append(feed, event, who, f"cancel:{command.input_id}")).seq)
            return _input_cancelled(feed.state, command.input_id)

    async def run_cancel(self, command: RunCancel, who: Identity) -> dict[str, Any]:
        """Raises Refused, Unavailable."""
        who.require(Right.CANCEL, command.session)
        async with self._hub.session(command.session) as feed:
            await feed.ready()
            verdict = _run_status(feed.state, command.run_id)
            if verdict in ("running", "queued"):
                event = RunCancelRequested(command.run_id, command.mode)
                stored = await self._append(feed, event, who, f"cancel:{command.run_id}:{command.mode}")
                await feed.reached(stored.seq)
                verdict = _run_status(feed.state, command.run_id)
            return _run_cancelled(command.run_id, verdict)

    async def history(self, command: History, who: Identity) -> dict[str, Any]:
        """Raises Refused, Unavailable."""
        who.require(Right.READ, command.session)
        async with self._hub.session(command.session) as feed:
            await feed.ready()
            before = command.before if command.before is not None else feed.last + 1
            # One more than asked for tells whether there are more; what is still being said is not counted.
            want = command.limit + 1 + sum(len(lane.streams) for lane in feed.state.lanes.values())
            found = await read_messages(self._log, feed.subjects, before, want)
            return _history_reply([m for m in found if m.status == "done"], command.limit)

    async def _append(self, feed: Feed, event: Event, who: Identity, message_id: str) -> Stored:
        """`message_id` must differ from those of other commands: an inputId, or text with a colon, which no id has."""
        by = Participant("user", who.id, who.name)
        entry = Entry(id=message_id, ts=int(time.time() * 1000), events=(event,), by=by)
        return await self._log.append_input(feed.subjects, entry, message_id)


def _refuse_full_queue(state: SessionState) -> None:
    if len(state.inputs) >= MAX_QUEUE:
        raise Refused(ErrorCode.QUEUE_FULL, f"{MAX_QUEUE} inputs wait already; send again later", limit=MAX_QUEUE)


def _stored_earlier(state: SessionState, input_id: str, seq: int) -> bool:
    """Whether the input of this id is another entry, stored before ours."""
    queued, fate = state.queued(input_id), state.fate(input_id)
    first = queued.seq if queued is not None else fate.seq if fate is not None else seq
    return first != seq


def _unfinished(state: SessionState, input_id: str) -> bool:
    return state.queued(input_id) is not None or run_id_of(input_id) in state.runs


def _input_receipt(state: SessionState, input_id: str, *, duplicate: bool) -> dict[str, Any]:
    run_id = run_id_of(input_id)
    receipt: dict[str, Any] = {"inputId": input_id, "runId": run_id, "duplicate": duplicate}
    queued = state.queued(input_id)
    if queued is not None:
        return receipt | {"seq": queued.seq, "status": "queued", "position": state.inputs.index(queued) + 1}
    fate = state.fate(input_id)
    if fate is not None and fate.status == "refused":
        code = ErrorCode.SESSION_FULL if fate.code == "session_full" else ErrorCode.QUEUE_FULL
        raise Refused(code, "the input came when there was no room for it; it will not run", inputId=input_id)
    if fate is not None and fate.status == "cancelled":
        return receipt | {"seq": fate.seq, "status": "cancelled", "position": None}
    status = "applied" if run_id in state.runs else "ended"
    return receipt | {"seq": None if fate is None else fate.seq, "status": status, "position": None}


def _input_cancelled(state: SessionState, input_id: str) -> dict[str, Any]:
    fate = state.fate(input_id)
    if fate is not None and fate.status == "cancelled":
        return {"inputId": input_id, "status": "cancelled"}
    if input_id in state.seen:
        raise Refused(ErrorCode.INPUT_ALREADY_APPLIED, "the input is no longer queued", inputId=input_id)
    raise Refused(ErrorCode.INPUT_NOT_FOUND, "the session has no such input", inputId=input_id)


def _run_status(state: SessionState, run_id: str) -> str:
    """running, queued, cancelled, ended or unknown."""
    input_id = run_id.removeprefix("run_")
    if run_id in state.runs:
        return "running"
    if state.queued(input_id) is not None:
        return "queued"
    fate = state.fate(input_id)
    end = state.end_of(run_id)
    if (end is not None and end.status == "cancelled") or (fate is not None and fate.status == "cancelled"):
        return "cancelled"
    return "ended" if input_id in state.seen else "unknown"


def _run_cancelled(run_id: str, status: str) -> dict[str, Any]:
    match status:
        case "running":
            return {"runId": run_id, "status": "cancelling"}
        case "cancelled":
            return {"runId": run_id, "status": "cancelled"}
        case "ended":
            raise Refused(ErrorCode.RUN_ENDED, "the run has ended already", runId=run_id)
        case _:
            raise Refused(ErrorCode.RUN_NOT_FOUND, "the session has no such run", runId=run_id)


def _history_reply(found: list[Message], limit: int) -> dict[str, Any]:
    size, chosen = 0, 0
    for message in reversed(found):
        size += message.length
        if chosen == limit or (chosen and size > _HISTORY_BYTES):
            break
        chosen += 1
    messages = found[len(found) - chosen :]
    more = len(found) > chosen
    return {"messages": [m.as_dict() for m in messages], "before": messages[0].seq if more else None}
