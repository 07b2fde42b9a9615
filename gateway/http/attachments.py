"""Attachments over HTTP: bytes in and out, never more of them in memory than a piece or two."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import hdrs, web
from aiohttp.multipart import content_disposition_filename, parse_content_disposition

from broker.attachments import DEFAULT_NAME, Attachment, name_problem, parse_media_type, path_of
from broker.clock import now_ms
from broker.errors import AttachmentGone, ErrorCode, InvalidName, LogError, Refused
from broker.media_types import SNIFFED_BYTES, is_allowed, mismatch
from broker.subjects import AttachmentPlace
from gateway.attachments import Attachments
from gateway.auth import Right
from gateway.http.answering import json_answer
from gateway.http.problems import HttpCode, Problem
from gateway.http.requests import Call
from gateway.metrics import GatewayMetrics

_RETRY_AFTER_MS = 1000
_SAFE_HEADERS = {
    # A browser saves it and never shows it as a page of this origin, whatever is in it.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    # It never changes, but who may read it does: a cache has to ask each time.
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._()+-]")


class AttachmentApi:
    """The operations on attachments. One for a gateway."""

    def __init__(self, attachments: Attachments, metrics: GatewayMetrics) -> None:
        self._attachments = attachments
        self._settings = attachments.settings
        self._metrics = metrics
        self._moving = 0

    # --- in ------------------------------------------------------------------------------------------------------------

    async def upload(self, call: Call) -> web.Response:
        with self._refusals_counted(), self._slot():
            try:
                async with _translated(), asyncio.timeout(self._settings.attachment_upload_s):
                    stored, duplicate = await self._upload(call)
            except TimeoutError:
                raise _too_slow("the upload took too long") from None
        reply = {"session": call.session, **stored.as_dict(), "duplicate": duplicate}
        place = path_of(call.session, stored.id)
        return json_answer(orjson.dumps(reply), 200 if duplicate else 201, {hdrs.LOCATION: place})

    async def _upload(self, call: Call) -> tuple[Attachment, bool]:
        """What is stored now, and whether it was before."""
        call.who.require(Right.SEND, call.session)
        media_type, name = self._media_type(call), _name(call)
        size = call.request.content_length
        if size is not None:
            self._check_size(size)
        place = await self._attachments.place_to_write(call.session, call.who)
        id_ = call.extra.get("Idempotency-Key") or secrets.token_hex(16)
        known = await self._attachments.store.find(place, id_)
        if known is None:
            await self._attachments.check_room(place, size or 0)
        body = _Body(call.request, self._settings.attachment_idle_s)
        head = await body.head()
        problem = mismatch(media_type, head)
        if problem is not None:
            raise Refused(ErrorCode.MEDIA_TYPE_REFUSED, f"this is not {media_type}: {problem}", mediaType=media_type)
        about = Attachment(id_, name, media_type, 0, "", call.who.id, now_ms())
        if known is None:
            return await self._store(place, about, body)
        return await self._compare(known, about, body), True

    async def _store(self, place: AttachmentPlace, about: Attachment, body: _Body) -> tuple[Attachment, bool]:
        async with self._attachments.store.upload(place, about.id) as upload:
            async for part in self._taken(body):
                await upload.write(part)
            whole = body.described(about)
            await self._attachments.check_room(place, whole.size)
            stored = await upload.commit(whole)
        if stored is not None:
            self._attachments.changed(place)
            return stored, False
        # Another upload with this id has ended first.
        return _same(await self._attachments.find(place, about.id), whole), True

    async def _compare(self, known: Attachment, about: Attachment, body: _Body) -> Attachment:
        """For one that is sent again: it must be the same."""
        async for _ in self._taken(body):
            pass
        return _same(known, body.described(about))

    async def _taken(self, body: _Body) -> AsyncIterator[bytes]:
        async for part in body.parts():
            self._check_size(body.size)
            self._metrics.attachment_bytes.labels("up").inc(len(part))
            yield part

    def _media_type(self, call: Call) -> str:
        declared = call.request.headers.get(hdrs.CONTENT_TYPE, "")
        media_type = parse_media_type(declared)
        if media_type is None:
            text = "say what it is by `Content-Type`"
            raise Refused(ErrorCode.MEDIA_TYPE_REFUSED, text, allowed=self._settings.types)
        if not is_allowed(media_type, self._settings.types):
            text = f"attachments may not be {media_type}"
            raise Refused(ErrorCode.MEDIA_TYPE_REFUSED, text, mediaType=media_type, allowed=list(self._settings.types))
        return media_type

    def _check_size(self, size: int) -> None:
        limit = self._settings.attachment_bytes
        if size > limit:
            raise Refused(
                ErrorCode.CONTENT_TOO_LARGE, f"an attachment may have {limit} bytes, and this has more", limit=limit
            )

    # --- out -----------------------------------------------------------------------------------------------------------

    async def listed(self, call: Call) -> web.Response:
        async with _translated():
            place = await self._attachments.place_to_read(call.session, call.who)
            found = await self._attachments.store.listed(place)
        reply = {"session": call.session, "attachments": [attachment.as_dict() for attachment in found]}
        return json_answer(orjson.dumps(reply))

    async def download(self, call: Call) -> web.StreamResponse:
        async with _translated():
            place = await self._attachments.place_to_read(call.session, call.who)
            found = await self._attachments.find(place, call.fields["id"])
        request, etag = call.request, f'"{found.sha256}"'
        headers = {**_SAFE_HEADERS, hdrs.ETAG: etag, hdrs.CONTENT_DISPOSITION: disposition(found.name)}
        wanted = request.headers.get(hdrs.IF_NONE_MATCH, "")
        if etag in wanted or wanted.strip() == "*":
            return web.Response(status=304, headers=headers)
        first, last = _range(request, found, etag)
        is_part = (first, last) != (0, found.size - 1)
        response = web.StreamResponse(status=206 if is_part else 200, headers=headers)
        response.headers[hdrs.CONTENT_TYPE] = _content_type(found.media_type)
        response.content_length = last - first + 1
        if is_part:
            response.headers[hdrs.CONTENT_RANGE] = f"bytes {first}-{last}/{found.size}"
        with self._slot():
            await response.prepare(request)
            if request.method != hdrs.METH_HEAD:
                await self._give(response, request, place, found, first, last)
        return response

    async def _give(
        self,
        response: web.StreamResponse,
        request: web.Request,
        place: AttachmentPlace,
        found: Attachment,
        first: int,
        last: int,
    ) -> None:
        try:
            async for part in self._attachments.store.read(place, found, first, last):
                async with asyncio.timeout(self._settings.attachment_idle_s):
                    await response.write(part)
                self._metrics.attachment_bytes.labels("down").inc(len(part))
        except (LogError, TimeoutError):
            # It has begun to answer: that the end is missing is all that can be said now.
            self._metrics.attachments_refused.labels("cut_short").inc()
            if request.transport is not None:
                request.transport.abort()

    async def remove(self, call: Call) -> web.Response:
        id_ = call.fields["id"]
        async with _translated():
            await self._attachments.remove(call.session, id_, call.who)
        return json_answer(orjson.dumps({"session": call.session, "id": id_}))

    # --- around them ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Counts who moves bytes now. Raises Problem (overloaded)."""
        if self._moving >= self._settings.attachment_uploads:
            text = "as many attachments are on their way as may; try again"
            raise Problem(HttpCode.OVERLOADED, text, {"retry_after_ms": _RETRY_AFTER_MS})
        self._moving += 1
        try:
            yield
        finally:
            self._moving -= 1

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except (Refused, Problem) as refusal:
            self._metrics.attachments_refused.labels(str(refusal.code)).inc()
            raise
        except (ConnectionError, asyncio.CancelledError):
            # A handler is cancelled when its client is gone.
            self._metrics.attachments_refused.labels("cut_short").inc()
            raise


class _Body:
    """A request's body on its way: how much of it there was, and its digest."""

    def __init__(self, request: web.Request, idle_s: float) -> None:
        self._request = request
        self._idle_s = idle_s
        self._head = b""
        self._digest = hashlib.sha256()
        self.size = 0

    async def head(self) -> bytes:
        """Its first bytes, which `parts` gives as well."""
        while len(self._head) < SNIFFED_BYTES and (part := await self._next()):
            self._head += part
        return self._head[:SNIFFED_BYTES]

    async def parts(self) -> AsyncIterator[bytes]:
        part, self._head = self._head, b""
        while part or (part := await self._next()):
            self.size += len(part)
            self._digest.update(part)
            yield part
            part = b""

    def described(self, about: Attachment) -> Attachment:
        """The attachment that it is, once all parts have come."""
        return Attachment(
            about.id, about.name, about.media_type, self.size, self._digest.hexdigest(), about.by, about.at
        )

    async def _next(self) -> bytes:
        """The next bytes; b"" at the end. Raises ConnectionError for a client that is gone, Problem for a slow one."""
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._request.content.readany()
        except TimeoutError:
            raise _too_slow(f"nothing has come for {self._idle_s:g} s") from None
        except web.RequestPayloadError as error:
            raise ConnectionResetError("the upload was cut short") from error


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """What the store and the log raise leaves as Refused."""
    try:
        yield
    except AttachmentGone as error:
        raise Refused(ErrorCode.UNAVAILABLE, f"{error}; send it again", retry_after_ms=_RETRY_AFTER_MS) from None
    except InvalidName as error:
        raise Refused(ErrorCode.BAD_NAME, str(error)) from None
    except LogError as error:
        raise Refused(ErrorCode.UNAVAILABLE, str(error), retry_after_ms=_RETRY_AFTER_MS) from None


def _too_slow(text: str) -> Problem:
    return Problem(HttpCode.UPLOAD_TIMEOUT, text, headers={"Connection": "close"})


def _same(known: Attachment, sent: Attachment) -> Attachment:
    """The attachment that is there, if it is the one that was sent. Raises Refused (attachment_exists)."""
    if (known.sha256, known.size, known.media_type) != (sent.sha256, sent.size, sent.media_type):
        text = "there is another attachment with this id; an id is for one content"
        raise Refused(ErrorCode.ATTACHMENT_EXISTS, text, attachment=known.id)
    return known


def _name(call: Call) -> str:
    """The file's name, in `name` or in Content-Disposition. Raises Refused (bad_name)."""
    name: Any = call.extra.get("name")
    header = call.request.headers.get(hdrs.CONTENT_DISPOSITION)
    if name is None and header is not None:
        with suppress(ValueError, LookupError):
            _, parameters = parse_content_disposition(header)
            name = content_disposition_filename(parameters, "filename")
    if name is None:
        return DEFAULT_NAME
    problem = name_problem(name)
    if problem is not None:
        raise Refused(ErrorCode.BAD_NAME, f"the name {problem}", field="name")
    return str(name)


def disposition(name: str) -> str:
    """The header that has a browser save it under this name (RFC 6266), whatever characters it has."""
    plain = _NOT_PLAIN.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _content_type(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def _range(request: web.Request, found: Attachment, etag: str) -> tuple[int, int]:
    """The first and the last byte that are wanted; several ranges at once are not given. Raises Problem (416)."""
    everything = 0, found.size - 1
    if hdrs.RANGE not in request.headers or request.headers.get(hdrs.IF_RANGE, etag) != etag:
        return everything
    try:
        wanted = request.http_range
    except ValueError:
        return everything  # what is no range says nothing (RFC 9110, section 14.2)
    start, stop = wanted.start, wanted.stop
    if start is not None and start < 0:
        start, stop = max(0, found.size + start), None
    first, last = start or 0, min(found.size, stop or found.size) - 1
    if first > last:
        headers = {str(hdrs.CONTENT_RANGE): f"bytes */{found.size}"}
        raise Problem(HttpCode.RANGE_NOT_SATISFIABLE, f"it has {found.size} bytes", {"size": found.size}, headers)
    return first, last
