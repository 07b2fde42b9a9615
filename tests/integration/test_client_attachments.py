"""The Python client and files: up, into messages, down again, through cuts; and its facade for scripts."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from antiphon_client import (
    Attachment,
    AttachmentRefused,
    Client,
    ConnectFailed,
    ContentTooLarge,
    NotFound,
    Settings,
    sync,
)
from tests.support.nats import single_server
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("files")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as made:
        await made.start(1)
        yield made


def gateway(stack: Stack) -> Process:
    return next(process for process in stack.processes if process.name == "gateway")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def session_name() -> str:
    return f"files-{next(NAMES)}"


async def test_a_file_goes_into_a_message_and_out_again(stack: Stack, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "Bild für 1.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    async with Client(gateway(stack).url, stack.token()) as client:
        session = client.session(session_name())
        stored = await session.upload(path)
        assert (stored.name, stored.media_type, stored.size) == ("Bild für 1.png", "image/png", 300_008)
        receipt = await session.send("", attachments=[stored])
        await receipt.finished()
        message = session.messages[0]
        assert [Attachment.from_dict(each) for each in message.attachments] == [stored]
        assert await session.download(stored) == path.read_bytes()
        await session.download_to(stored.id, tmp_path / "copy.png")
        assert (tmp_path / "copy.png").read_bytes() == path.read_bytes()
        assert await asyncio.to_thread(names_in, tmp_path) == ["Bild für 1.png", "copy.png"]
        with pytest.raises(ContentTooLarge):
            await session.download(stored, limit_bytes=1000)
        with pytest.raises(NotFound):
            await session.download("none")
        with pytest.raises(NotFound):
            await session.send("look", attachments=["none"])
        with pytest.raises(AttachmentRefused) as caught:
            await session.upload(b"<html>", media_type="text/html")
        assert caught.value.code == "media_type_refused"
        with pytest.raises(ValueError, match="not empty"):
            await session.send("")


async def test_bytes_as_they_come_and_what_nobody_refers_to(stack: Stack) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(1000):
            yield f"line {n}\n".encode()

    async with Client(gateway(stack).url, stack.token()) as client:
        session = client.session(session_name())
        stored = await session.upload(pieces(), name="lines.txt", attachment_id="lines")
        text = "".join(f"line {n}\n" for n in range(1000)).encode()
        assert stored.sha256 == hashlib.sha256(text).hexdigest()
        again = await session.upload(text, name="lines.txt", attachment_id="lines")
        assert again == stored
        with pytest.raises(AttachmentRefused):
            await session.upload(b"other", name="lines.txt", attachment_id="lines")
        assert await session.attachments() == [stored]
        submission = session.submit("later", attachments=[stored])
        assert [unsent.attachments for unsent in session.outbox] in ([("lines",)], [])
        await (await submission.stored()).finished()
        with pytest.raises(AttachmentRefused):
            async with Client(gateway(stack).url, stack.token(sessions={"*": ["read", "send"]})) as other:
                await other.session(session.name).delete_attachment(stored)
        await session.delete_attachment(stored)
        assert await session.attachments() == []


async def test_a_download_that_is_cut_off_goes_on(stack: Stack) -> None:
    """A proxy cuts the connection in the middle of the answer, again and again."""
    data = os.urandom(3_000_000)
    target = gateway(stack).url.removeprefix("http://").partition(":")
    cuts = 0

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        back_reader, back_writer = await asyncio.open_connection(target[0], int(target[2]))
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            back_writer.write(request)
            left = 700_000 if request.startswith(b"GET /v1/sessions") else 1 << 40
            async with asyncio.TaskGroup() as tasks:
                up = tasks.create_task(_pass_on(reader, back_writer))
                while left > 0 and (part := await back_reader.read(min(65_536, left))):
                    left -= len(part)
                    writer.write(part)
                    await writer.drain()
                up.cancel()
            cuts += left <= 0
        finally:
            for each in (writer, back_writer):
                each.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    name = session_name()
    async with Client(gateway(stack).url, stack.token()) as client:
        stored = await client.session(name).upload(b"\x89PNG\r\n\x1a\n" + data, name="a.png")
    settings = Settings(backoff_base_s=0.01)
    async with Client(f"http://127.0.0.1:{port}", stack.token(), settings=settings) as client:
        assert (await client.session(name).download(stored))[8:] == data
    assert cuts >= 4
    server.close()
    for task in serving:
        task.cancel()
    await asyncio.wait(serving)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65_536):
        writer.write(part)


async def test_no_gateway_is_a_typed_error(stack: Stack) -> None:
    other = await stack.gateway()
    async with Client(other.url, stack.token(), settings=Settings(command_retries=0)) as client:
        await other.kill()
        with pytest.raises(ConnectFailed):
            await client.session(session_name()).download("a")


async def test_the_facade_for_scripts(stack: Stack, tmp_path: Path) -> None:
    def script() -> None:
        with sync.Client(gateway(stack).url, stack.token()) as client:
            session = client.session(session_name())
            stored = session.upload(b"a,b\n", name="a.csv", media_type="text/csv")
            session.send("look", attachments=[stored]).finished()
            assert session.download(stored) == b"a,b\n"
            assert b"".join(session.pieces(stored)) == b"a,b\n"
            session.download_to(stored, tmp_path / "a.csv")
            assert (tmp_path / "a.csv").read_bytes() == b"a,b\n"
            assert session.attachments() == [stored]
            session.delete_attachment(stored)

    await asyncio.to_thread(script)
