"""Agents and attachments: they read what people send, and give files of their own, under their fence."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import AttachmentNotFound, AttachmentRefused, ContentTooLarge
from broker.attachments import Attachment
from broker.clock import now_ms
from broker.config import AttachmentSettings
from broker.errors import WrongSequence
from broker.events import Entry, InputSent, Participant
from broker.jetstream.attachments import JetStreamAttachments
from broker.subjects import MAIN_LANE, AttachmentPlace
from tests.support.nats import NatsNode
from tests.support.site import USER, Site, open_site, said

PLACE = AttachmentPlace("s", 0)


def store_of(site: Site) -> JetStreamAttachments:
    return JetStreamAttachments(site.connection, AttachmentSettings())


async def put(store: JetStreamAttachments, id_: str, data: bytes) -> Attachment:
    about = Attachment(id_, f"{id_}.txt", "text/plain", len(data), hashlib.sha256(data).hexdigest(), "user-1", now_ms())
    async with store.upload(PLACE, id_) as upload:
        await upload.write(data)
        stored = await upload.commit(about)
    assert stored is not None
    return stored


async def send(site: Site, input_id: str, *attachments: Attachment) -> str:
    """Sends an input with attachments as a gateway would, and calls a worker."""
    subjects = site.log.subjects("s")
    references = [attachment.reference() for attachment in attachments]
    entry = Entry(input_id, now_ms(), (InputSent(input_id, "look", None, references),), by=USER)
    await site.log.append_input(subjects, entry, input_id)
    await site.jobs.offer(subjects, MAIN_LANE)
    return f"run_{input_id}"


async def test_an_agent_reads_what_it_is_sent(nats_server: NatsNode) -> None:
    data = b"line\n" * 60_000

    async def run(ctx: SessionContext) -> None:
        assert ctx.input is not None
        (reference,) = ctx.input.attachments
        file = await ctx.attachment(reference["id"])
        digest = hashlib.sha256()
        async for piece in file.stream():
            digest.update(piece)
        assert (await file.read(), digest.hexdigest()) == (data, file.sha256)
        with pytest.raises(ContentTooLarge):
            await file.read(limit=10)
        with pytest.raises(AttachmentNotFound):
            await ctx.attachment("no-such")
        (message,) = [m for m in await ctx.history() if m.role == "user"]
        assert message.attachments == ctx.input.attachments
        await ctx.text(f"{file.name} {file.media_type} {file.size}")

    async with open_site(nats_server.url) as site, site.working(Agent("reads", run)):
        stored = await put(store_of(site), "notes", data)
        transcript = await site.ended("s", await send(site, "i1", stored))
        assert said(transcript) == "notes.txt text/plain 300000", await site.errors("s")


async def test_an_agent_gives_files_of_its_own(nats_server: NatsNode) -> None:
    given: list[Attachment] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"\x89PNG\r\n\x1a\n"
        for _ in range(3):
            yield os.urandom(100_000)

    async def run(ctx: SessionContext) -> None:
        await ctx.text("Here it is: ")
        given.append(await ctx.attach("plot.png", "image/png", pieces()))
        await ctx.text("and the numbers.")
        ctx.end_message()
        given.append(await ctx.attach("numbers.csv", "text/csv", b"a,b\n1,2\n"))

    async with open_site(nats_server.url) as site, site.working(Agent("gives", run)):
        transcript = await site.ended("s", await send(site, "i1"))
        messages = [m for m in transcript.messages if m.role == "assistant"]
        plot, numbers = given
        assert [(m.text, [a["id"] for a in m.attachments]) for m in messages] == [
            ("Here it is: and the numbers.", [plot.id]),
            ("", [numbers.id]),
        ], await site.errors("s")
        assert messages[1].attachments[0] == numbers.reference()
        store = store_of(site)
        assert [(a.id, a.used, a.by) for a in await store.listed(PLACE)] == [
            (plot.id, True, "gives"),
            (numbers.id, True, "gives"),
        ]
        read = b"".join([piece async for piece in store.read(PLACE, plot)])
        assert (len(read), hashlib.sha256(read).hexdigest()) == (plot.size, plot.sha256)


async def test_what_may_not_be_attached_leaves_nothing(nats_server: NatsNode) -> None:
    bad: tuple[tuple[str, str, bytes], ...] = (
        ("../a.txt", "text/plain", b"x"),
        ("a.html", "text/html", b"x"),
        ("a.png", "image/png", b"MZ"),
        ("a.txt", "no type", b"x"),
    )

    async def run(ctx: SessionContext) -> None:
        for arguments in bad:
            with pytest.raises(AttachmentRefused):
                await ctx.attach(*arguments)
        with pytest.raises(ContentTooLarge):
            await ctx.attach("a.txt", "text/plain", b"x" * (AttachmentSettings().attachment_bytes + 1))
        await ctx.text("none")

    async with open_site(nats_server.url) as site, site.working(Agent("bad", run)):
        transcript = await site.ended("s", await send(site, "i1"))
        assert said(transcript) == "none", await site.errors("s")
        assert all(not m.attachments for m in transcript.messages)
        assert await store_of(site).listed(PLACE) == []


async def test_one_who_has_lost_the_lane_gives_nothing(nats_server: NatsNode) -> None:
    """A human takes the lane while the agent's file is on its way: nobody ever sees it."""
    taken, seen = asyncio.Event(), asyncio.Event()
    raised: list[BaseException] = []

    async def pieces(site: Site) -> AsyncIterator[bytes]:
        yield b"first "
        subjects = site.log.subjects("s")
        owner = await site.log._last_on(subjects, subjects.owner(MAIN_LANE))
        assert owner is not None
        await site.log.claim(subjects, MAIN_LANE, owner.seq, Participant("user", "user-9"), now_ms())
        taken.set()
        yield b"second"

    async with open_site(nats_server.url) as site:

        async def run(ctx: SessionContext) -> None:
            try:
                await ctx.attach("a.txt", "text/plain", pieces(site))
            except BaseException as error:
                raised.append(error)
                raise
            finally:
                seen.set()

        async with site.working(Agent("late", run)):
            await send(site, "i1")
            async with asyncio.timeout(60):
                await taken.wait()
                await seen.wait()
            transcript = await site.until("s", lambda t: t.state.lane(MAIN_LANE).human)
            assert all(not m.attachments for m in transcript.messages)
            assert isinstance(raised[0], WrongSequence | asyncio.CancelledError)
            if isinstance(raised[0], WrongSequence):
                async with asyncio.timeout(60):
                    while await store_of(site).listed(PLACE):
                        await asyncio.sleep(0.05)
