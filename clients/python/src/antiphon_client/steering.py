"""The commands into a session that need nothing but a connection (PROTOCOL, section 7)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from ._host import Host
from ._json import JsonObject, as_count, as_int, as_objects, as_str, check_json
from ._trace import current
from .attachments import Sharing
from .errors import ClientClosed
from .frames import command
from .model import Vote
from .transcript import Message


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Whole messages, oldest first. Pass `before` on for the page before; None: there is none."""

    messages: tuple[Message, ...]
    before: int | None


@dataclass(frozen=True, slots=True)
class Response:
    """What a response to an approval came to: `resolved` with a `decision`, or `pending` until more have voted."""

    status: str
    decision: str | None
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Created:
    """The session is created, by the entry `seq`; `duplicate`: it was before, by the same user."""

    seq: int | None
    duplicate: bool


class Steering(Sharing):
    """The part of a `Session` that steers runs, decides, takes over, and manages the session.

    Every command returns once it is stored, is sent again by itself after a lost connection, and
    raises its refusal: a `CommandRefused` of the kind that is named, or `NotAllowed`; and
    `ConnectionClosed` when the client has stopped. What cannot be sent as JSON is a ValueError.
    """

    def __init__(self, host: Host, name: str) -> None:
        super().__init__(host, name)
        self._closed = False

    @property
    def name(self) -> str:
        """The session's name."""
        return self._name

    async def _ask(self, op: str, **fields: object) -> JsonObject:
        self._check_open()
        every = {**fields, **current()}
        return await self._host.call(lambda command_id: command(op, command_id, self._name, **every))

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("closed", f"session {self._name} was closed")

    # ---- runs and inputs

    async def cancel_run(self, run_id: str, mode: str | None = None) -> str:
        """Stop a run, even before it starts; safe to repeat. Returns `cancelling` or `cancelled`.

        `mode` is `immediate` (None, too) or `after_step`: at the end of the step or tool call that
        is going on. Raises `NotFound`, `TooLate` (it has ended).
        """
        reply = await self._ask("run.cancel", runId=run_id, mode=mode)
        return as_str(reply.get("status")) or "cancelling"

    cancel = cancel_run  # by this name since before inputs could be cancelled

    async def cancel_input(self, input_id: str) -> None:
        """Take back an input that still waits. Raises `NotFound`, `TooLate`."""
        await self._ask("input.cancel", inputId=input_id)

    async def history(self, before: int | None = None, limit: int = 50) -> HistoryPage:
        """Up to `limit` (1 to 200) whole messages that were added before the entry `before`."""
        reply = await self._ask("history", before=before, limit=limit)
        found = (Message.from_dict(raw) for raw in as_objects(reply.get("messages")))
        messages = tuple(message for message in found if message is not None)
        return HistoryPage(messages, as_count(reply.get("before")))

    async def history_pages(self, before: int | None = None, limit: int = 50) -> AsyncIterator[HistoryPage]:
        """Iterate over the pages of `history`, the newest first; each has its messages oldest first."""
        while True:
            page = await self.history(before, limit)
            yield page
            if page.before is None or page.before == before:
                return
            before = page.before

    # ---- approvals and questions

    async def respond(self, approval_id: str, option: str, payload: object = None) -> Response:
        """Decide a pending approval, or answer a question; `payload` is the answer, or edited arguments.

        Raises `NotFound`, `NotFirst` (with `status`, `decision` and `by`), `RoleRequired`, `TooLate`,
        `ValueRefused`, `ContentTooLarge`.
        """
        check_json(payload, "payload")
        reply = await self._ask("approval.respond", approvalId=approval_id, option=option, payload=payload)
        votes = (Vote.from_dict(raw) for raw in as_objects(reply.get("votes")))
        status, decision = as_str(reply.get("status")) or "pending", as_str(reply.get("decision"))
        return Response(status, decision, tuple(vote for vote in votes if vote is not None))

    async def revoke(self, key: str) -> None:
        """Have asked again what was decided for always (`State.remembered`). Raises `NotFound`."""
        await self._ask("approval.revoke", key=key)

    # ---- hand-over

    async def claim_handoff(self, lane: str = "main", handoff_id: str | None = None) -> int | None:
        """Take a lane from its agent; returns the fence under which it is yours.

        With `handoff_id` it answers that hand-over, else the lane is taken unasked (admin). Raises
        `NotFound`, `RoleRequired`, `NotFirst`.
        """
        reply = await self._ask("handoff.claim", lane=lane, handoffId=handoff_id)
        return as_int(reply.get("fence"))

    async def return_handoff(self, note: str = "", lane: str = "main", input_id: str | None = None) -> str:
        """Give the lane back to the agent; a `note` is its next input. Returns the id of that input.

        Raises `NotYours`.
        """
        check_json(note, "note")
        chosen = uuid.uuid4().hex if input_id is None else input_id
        await self._ask("handoff.return", lane=lane, inputId=chosen, note=note or None)
        return chosen

    # ---- the session itself

    async def create(
        self, title: str | None = None, metadata: JsonObject | None = None, config: JsonObject | None = None
    ) -> Created:
        """Say what the session is before anything is written to it.

        `config` is as in PROTOCOL, section 6. Raises `NotFirst` (somebody else has created it),
        `ValueRefused`, `ContentTooLarge`.
        """
        reply = await self._ask("session.create", **_about(title, metadata, config))
        return Created(as_count(reply.get("seq")), reply.get("duplicate") is True)

    async def update(
        self, title: str | None = None, metadata: JsonObject | None = None, config: JsonObject | None = None
    ) -> int | None:
        """Change what is given, and of `config` its fields; returns the entry. Raises as `create`."""
        reply = await self._ask("session.update", **_about(title, metadata, config))
        return as_count(reply.get("seq"))

    async def close_session(self) -> None:
        """Have the session take no inputs, for everybody (`close` only stops reading it here)."""
        await self._ask("session.close")

    async def reopen_session(self) -> None:
        """Have the session take inputs again."""
        await self._ask("session.reopen")

    async def delete(self) -> None:
        """Delete the session, for everybody and for good."""
        await self._ask("session.delete")

    async def fork(self, to: str, before: int | None = None) -> int:
        """Make the session `to`, which begins with this one's messages that were added before the entry `before`.

        With `before` None, with all of them; it has this one's config, title and metadata. Returns
        how many messages it begins with. Raises `NotFirst` if `to` is in use, `ContentTooLarge`.
        """
        reply = await self._ask("session.fork", to=to, before=before)
        return as_count(reply.get("messages")) or 0


def _about(title: str | None, metadata: JsonObject | None, config: JsonObject | None) -> Mapping[str, object]:
    about: Mapping[str, object] = {"title": title, "metadata": metadata, "config": config}
    check_json(about, "what a session is told")
    return about
