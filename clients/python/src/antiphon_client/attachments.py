"""Attachments of a session: files, which go over HTTP, beside the WebSocket (HTTP.md)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import mimetypes
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import aiohttp

from ._host import Host
from ._json import JsonObject, as_count, as_objects, as_str, parse_object
from .errors import AntiphonError, CommandRefused, ConnectFailed, ContentTooLarge, refusal
from .reconnect import full_jitter_s

Source: TypeAlias = str | os.PathLike[str] | bytes | AsyncIterable[bytes]
"""A file by its path, its bytes, or its bytes as they come."""

_PASSING: Final = frozenset({"rate_limited", "unavailable", "internal", "overloaded", "draining", "upload_timeout"})
_PIECE_BYTES: Final = 262_144
_UNKNOWN_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a session, as messages refer to it; `sha256` is in hexadecimal digits."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Attachment | None:
        """Read one, of a message or of a reply; None if it has no id."""
        id_ = as_str(raw.get("id"))
        if id_ is None:
            return None
        name, media_type = as_str(raw.get("name")) or "attachment", as_str(raw.get("mediaType")) or _UNKNOWN_TYPE
        return cls(id_, name, media_type, as_count(raw.get("size")) or 0, as_str(raw.get("sha256")) or "")


Named: TypeAlias = Attachment | str
"""An attachment, or its id."""


class Sharing:
    """The part of a `Session` that moves files."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name

    async def upload(
        self,
        source: Source,
        *,
        name: str | None = None,
        media_type: str | None = None,
        attachment_id: str | None = None,
    ) -> Attachment:
        """Store a file in the session, for `send(…, attachments=[…])`; it is never held whole in memory.

        `name` is that of the file unless it is given, `media_type` what that name says. One that no message
        refers to is not kept for long. `attachment_id` (one is made if None) makes sending again safe; a file
        or bytes are sent again by themselves when the connection was lost. Raises `AttachmentRefused`,
        `ContentTooLarge`, `SessionClosed`, other `CommandRefused`, and `ConnectFailed`.
        """
        called = name or (Path(source).name if isinstance(source, str | os.PathLike) else "attachment")
        chosen = uuid.uuid4().hex if attachment_id is None else attachment_id
        guessed = media_type or mimetypes.guess_type(called)[0] or _UNKNOWN_TYPE
        headers = {"Content-Type": guessed, "Idempotency-Key": chosen}
        attempt = 0
        while True:
            data = await _opened(source)
            try:
                reply = await self._sent("POST", self._path(), headers=headers, params={"name": called}, data=data)
            except (CommandRefused, ConnectFailed) as error:
                is_passing = error.code in {*_PASSING, "unreachable"}
                if not isinstance(data, io.IOBase) or not is_passing or attempt >= self._retries:
                    raise
                await self._pause(attempt, error)
                attempt += 1
                continue
            finally:
                if isinstance(data, io.IOBase):
                    data.close()
            stored = Attachment.from_dict(reply)
            assert stored is not None, "a gateway names what it has stored"
            return stored

    async def download(self, attachment: Named, *, limit_bytes: int = 64 << 20) -> bytes:
        """The content of an attachment, checked against its digest. Raises `ContentTooLarge` beyond `limit_bytes`,
        `NotFound`, other `CommandRefused`, and `ConnectFailed`.
        """
        found = bytearray()
        async for piece in self.pieces(attachment):
            found += piece
            if len(found) > limit_bytes:
                raise ContentTooLarge("content_too_large", f"the attachment has more than {limit_bytes} bytes")
        return bytes(found)

    async def download_to(self, attachment: Named, path: str | os.PathLike[str]) -> None:
        """Write an attachment into a file, which is there once it is whole. Raises as `download`, and OSError."""
        target = Path(path)
        part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with await asyncio.to_thread(part.open, "wb") as file:
                async for piece in self.pieces(attachment):
                    await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(part.replace, target)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)

    async def pieces(self, attachment: Named) -> AsyncIterator[bytes]:
        """The content piece by piece; one that is cut off goes on where it was. Raises as `download`, and at the end
        `ConnectFailed` if it is not what its digest says.
        """
        path, digest, position, etag, attempt = f"{self._path()}/{_id_of(attachment)}", hashlib.sha256(), 0, "", 0
        while True:
            headers = {"Range": f"bytes={position}-", "If-Range": etag} if position else {}
            try:
                async with self._host.request("GET", path, headers=headers) as response:
                    await _check(response)
                    etag = response.headers.get("ETag", "")
                    if position and response.status != 206:
                        raise ConnectFailed("changed", "the attachment is not the one it was")
                    async for piece in response.content.iter_chunked(_PIECE_BYTES):
                        digest.update(piece)
                        position += len(piece)
                        attempt = 0
                        yield piece
                break
            except (aiohttp.ClientError, TimeoutError, CommandRefused) as error:
                passing = not isinstance(error, CommandRefused) or error.code in _PASSING
                if not passing or attempt >= self._retries:
                    raise _translated(error) from error
                await self._pause(attempt, error)
                attempt += 1
        if etag != f'"{digest.hexdigest()}"':
            raise ConnectFailed("changed", "what has come is not what its digest says")

    async def attachments(self) -> list[Attachment]:
        """All attachments of the session, oldest first, also those that no message refers to."""
        reply = await self._sent("GET", self._path())
        found = (Attachment.from_dict(raw) for raw in as_objects(reply.get("attachments")))
        return [attachment for attachment in found if attachment is not None]

    async def delete_attachment(self, attachment: Named) -> None:
        """Delete one that no message refers to (an admin: any). Raises `NotFound`, `AttachmentRefused`, `NotAllowed`."""
        await self._sent("DELETE", f"{self._path()}/{_id_of(attachment)}")

    # ---- inside

    @property
    def _retries(self) -> int:
        return self._host.settings.command_retries

    def _path(self) -> str:
        return f"/v1/sessions/{self._name}/attachments"

    async def _pause(self, attempt: int, error: Exception) -> None:
        wished_s = error.retry_after_s if isinstance(error, CommandRefused) else None
        await asyncio.sleep(full_jitter_s(attempt, self._host.rand()) if wished_s is None else wished_s)

    async def _sent(self, method: str, path: str, **more: Any) -> JsonObject:
        """The JSON of an answer."""
        try:
            async with self._host.request(method, path, **more) as response:
                await _check(response)
                return parse_object(await response.text()) or {}
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _translated(error) from error


async def _opened(source: Source) -> IO[bytes] | AsyncIterable[bytes]:
    """What can be read from: a file of its own for each try. Raises OSError."""
    match source:
        case bytes():
            return io.BytesIO(source)
        case str() | os.PathLike():
            return await asyncio.to_thread(Path(source).open, "rb")
        case _:
            return source


def references(attachments: Iterable[Named]) -> list[dict[str, str]] | None:
    """As `input.send` has them; None: there are none."""
    return [{"id": _id_of(attachment)} for attachment in attachments] or None


def _id_of(attachment: Named) -> str:
    return attachment if isinstance(attachment, str) else attachment.id


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raises the typed refusal that an answer is."""
    if response.status < 400:
        return
    problem = parse_object(await response.text()) or {}
    more = problem.get("data")
    code, detail = problem.get("code", f"http_{response.status}"), problem.get("detail", "")
    told = {"code": code, "message": detail, "retryable": problem.get("retryable")}
    raise refusal({**(more if isinstance(more, dict) else {}), **told})


def _translated(error: Exception) -> AntiphonError:
    if isinstance(error, AntiphonError):
        return error
    return ConnectFailed("unreachable", str(error) or type(error).__name__, retryable=True)
