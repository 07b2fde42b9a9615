"""A session's attachments as lines of JSON, behind those of its log (`broker.transfer`), and back into a store.

Each begins with ``{"attachment":{…}}``, what it is; its bytes follow, in lines ``{"piece":"<base64>"}``.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from broker.attachments import Attachment, from_wire, references_of
from broker.errors import AntiphonError
from broker.events import Entry, InputScheduled, InputSent, MessageAttached, MessagesImported
from broker.interfaces import AttachmentStore, Upload
from broker.subjects import AttachmentPlace, SessionKey


class CarryingError(AntiphonError):
    """Lines are not those of an attachment, or the session holds another one with its id."""


def referred(entry: Entry) -> Iterator[str]:
    """The ids of attachments that an entry refers to."""
    for event in entry.events:
        match event:
            case InputSent() | InputScheduled() | MessageAttached():
                found = references_of(event.attachments)
            case MessagesImported():
                found = tuple(r for message in event.messages for r in references_of(message.get("attachments")))
            case _:
                found = ()
        yield from (reference["id"] for reference in found if isinstance(reference.get("id"), str))


async def carried(store: AttachmentStore, place: AttachmentPlace, ids: Iterable[str]) -> AsyncIterator[dict[str, Any]]:
    """The lines of these attachments; those that an admin has deleted are left out. Raises AttachmentGone, Unavailable."""
    for id_ in ids:
        attachment = await store.find(place, id_)
        if attachment is not None:
            yield {"attachment": attachment.as_dict()}
            async for piece in store.read(place, attachment):
                yield {"piece": base64.b64encode(piece).decode()}


def is_carried(wire: Mapping[str, Any]) -> bool:
    """Whether a line belongs to an attachment."""
    return "attachment" in wire or "piece" in wire


@asynccontextmanager
async def carrying(
    store: AttachmentStore | None, session: SessionKey, *, only_compare: bool
) -> AsyncIterator[Carrier | None]:
    """Puts attachments into a session, line by line; with `only_compare`, they must be there. None without a store.

    Raises CarryingError, LogFull, Unavailable.
    """
    if store is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        carrier = Carrier(store, session, stack, only_compare=only_compare)
        yield carrier
        await carrier.finish()


class Carrier:
    """Made by `carrying`, whose end is that of the last attachment."""

    def __init__(
        self, store: AttachmentStore, session: SessionKey, stack: AsyncExitStack, *, only_compare: bool
    ) -> None:
        self._store = store
        self._session = session
        self._only_compare = only_compare
        self._stack = stack
        self._about: Attachment | None = None
        self._upload: Upload | None = None
        self._digest = hashlib.sha256()

    async def take(self, wire: Mapping[str, Any], begun: int) -> None:
        """The next line; `begun` is where the session that it goes to began anew."""
        if "attachment" in wire:
            await self.finish()
            await self._begin(_described(wire["attachment"]), AttachmentPlace(self._session, begun))
        elif self._upload is not None:
            try:
                piece = base64.b64decode(wire["piece"], validate=True)
            except (TypeError, ValueError):
                raise CarryingError("a piece of an attachment is not base64") from None
            self._digest.update(piece)
            await self._upload.write(piece)

    async def _begin(self, about: Attachment, place: AttachmentPlace) -> None:
        there = await self._store.find(place, about.id)
        if there is not None and there.sha256 == about.sha256:
            return
        if there is not None or self._only_compare:
            what = "holds another attachment" if there is not None else "lacks the attachment"
            raise CarryingError(f"the session {place.session!r} {what} {about.id!r}")
        self._about, self._digest = about, hashlib.sha256()
        self._upload = await self._stack.enter_async_context(self._store.upload(place, about.id))

    async def finish(self) -> None:
        """There are no more lines of this one."""
        if self._upload is None or self._about is None:
            return
        if self._digest.hexdigest() != self._about.sha256:
            raise CarryingError(f"the attachment {self._about.id!r} is not what its digest says")
        await self._upload.commit(dataclasses.replace(self._about, used=True))
        self._upload = None
        await self._stack.aclose()


def _described(wire: Any) -> Attachment:
    try:
        return from_wire({**wire, "upload": "", "pieces": []}, 0)
    except (KeyError, TypeError, ValueError):
        raise CarryingError("this does not say what an attachment is") from None
