"""Export and restore: everything a session holds, through a file, into another log."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator

import orjson
import pytest

from broker.attachments import Attachment
from broker.carrying import CarryingError
from broker.clock import now_ms
from broker.config import AttachmentSettings
from broker.events import Entry, InputSent, SessionDeleted
from broker.jetstream.attachments import JetStreamAttachments
from broker.loading import load
from broker.state import SessionState
from broker.subjects import MAIN_LANE, AttachmentPlace
from broker.transcript import Transcript
from broker.transfer import Deleted, Into, TransferError, exported, restore
from broker.view import public_view
from tests.support.lagging import LaggingLog
from tests.support.nats import NatsNode
from tests.support.site import USER, Site, open_site
from tests.support.stack import read_entries


async def lines_of(site: Site, session: str) -> list[bytes]:
    return [line async for line in exported(site.log, site.log.subjects(session))]


async def given(lines: list[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


def folded(transcript: Transcript) -> tuple[list[object], object]:
    """What a session comes to, without the sequences, which are the log's."""
    messages = [{k: v for k, v in m.as_dict().items() if k != "seq"} for m in transcript.messages]
    return list(messages), _without_seq(public_view(transcript.state))


def _without_seq(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_seq(v) for k, v in value.items() if k not in ("seq", "fence")}
    return [_without_seq(v) for v in value] if isinstance(value, list) else value


async def test_a_session_is_restored_as_it_was(nats_server: NatsNode) -> None:
    """With a run that is still going on, what waits, and two owners; tokens too, with their times."""
    async with open_site(nats_server.url) as site:
        async with site.working():
            await site.ended("old", await site.send("old", "stream 50 tokens", "a"))
        async with site.working() as second:
            await site.send("old", "stream 100000 tokens at 200/s", "b")
            await site.send("old", "later", "c")
            await site.until("old", lambda t: sum(len(m.text) for m in t.messages) > 500)
            await second.die()
        before = (await load(site.log, site.log.subjects("old"))).transcript
        restored = await restore(site.log, site.log.subjects("new"), exported(site.log, site.log.subjects("old")))
        assert restored.written > 0
        after = (await load(site.log, site.log.subjects("new"))).transcript
        assert folded(after) == folded(before)
        old, new = await read_entries(site.log, "old"), await read_entries(site.log, "new")
        assert [(e.ts, e.events, e.off) for _, e in new] == [(e.ts, e.events, e.off) for _, e in old]
        assert after.state.lane_run(MAIN_LANE) is not None
        # It is a session like any other: a worker goes on with it.
        await site.jobs.offer(site.log.subjects("new"), MAIN_LANE)
        async with site.working():
            await site.until("new", lambda t: any(run.attempt > 1 for run in t.state.runs.values()))


async def test_what_cannot_be_restored_is_refused(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        await site.send("old", "hello", "a")
        lines = await lines_of(site, "old")
        with pytest.raises(TransferError, match="not empty"):
            await restore(site.log, site.log.subjects("old"), given(lines))
        for bad, message in (
            ([], "line 1: this is not JSON"),
            ([b"{}"], "line 1: this is not a session"),
            ([lines[0], b"[]"], "line 2: this is not a JSON object"),
            ([lines[0], orjson.dumps({"place": "moon", "seq": 1, "entry": {}})], "line 2: this is no entry"),
        ):
            with pytest.raises(TransferError, match=message):
                await restore(site.log, site.log.subjects("new"), given(bad))
        assert (await load(site.log, site.log.subjects("new"))).state == SessionState()


async def test_an_export_from_a_replica_that_lags_is_whole(nats_server: NatsNode) -> None:
    """In a cluster any read may end early; what the leader has named as the end is waited for."""
    async with open_site(nats_server.url) as site:
        async with site.working():
            await site.ended("old", await site.send("old", "stream 20 tokens", "a"))
        whole = await lines_of(site, "old")
        async with LaggingLog(site.connection, site.settings) as lagging:
            await lagging.prepare()
            subjects = lagging.subjects("old")
            assert [line async for line in exported(lagging, subjects)] == whole
            restored = await restore(lagging, lagging.subjects("new"), given(whole))
            again = await restore(lagging, lagging.subjects("new"), given(whole), into=Into.PART)
        assert restored.written == len(whole) - 1
        assert (again.written, again.present, again.beyond) == (0, len(whole) - 1, False)


async def test_a_session_that_is_deleted_while_it_is_read_is_not_taken_for_whole(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        await site.send("old", "hello", "a")
        await site.send("old", "hello again", "b")
        subjects, lines = site.log.subjects("old"), []

        async def reading() -> None:
            async for line in exported(site.log, subjects):
                lines.append(line)
                if len(lines) == 2:
                    await site.log.forget_before(subjects, await site.say("old", SessionDeleted()))

        with pytest.raises(Deleted):
            await reading()
        assert len(lines) == 3, "what was read by then"


async def test_deltas_that_have_aged_out_are_no_difference(nats_server: NatsNode) -> None:
    """A restoration that is gone on with after a day finds its records, and none of its tokens."""
    async with open_site(nats_server.url) as site:
        async with site.working():
            await site.ended("old", await site.send("old", "stream 20 tokens", "a"))
        whole = await lines_of(site, "old")
        subjects = site.log.subjects("new")
        await restore(site.log, subjects, given(whole[: len(whole) // 2]))
        await site.connection.purge(subjects.stream, f"{subjects.root}.d.>")
        again = await restore(site.log, subjects, given(whole), into=Into.PART)
        assert again.written > 0
        assert (await restore(site.log, subjects, given(whole), into=Into.SAME)).written == 0
        spoilt = [line.replace(b"stream 20", b"stream 21") for line in whole]
        with pytest.raises(TransferError, match="holds something else"):
            await restore(site.log, subjects, given(spoilt), into=Into.SAME)
        with pytest.raises(TransferError, match="lacks this entry"):
            await restore(site.log, site.log.subjects("absent"), given(whole), into=Into.SAME)


# --- attachments -----------------------------------------------------------------------------------------------------


async def attached(site: Site, session: str, id_: str, data: bytes, begun: int = 0) -> None:
    """An attachment, and an input that refers to it."""
    store, place = JetStreamAttachments(site.connection, AttachmentSettings()), AttachmentPlace(session, begun)
    digest = hashlib.sha256(data).hexdigest()
    async with store.upload(place, id_) as upload:
        await upload.write(data)
        stored = await upload.commit(Attachment(id_, f"{id_}.bin", "text/plain", len(data), digest, "user-1", 5, True))
    assert stored is not None
    entry = Entry(f"i-{id_}", now_ms(), (InputSent(f"i-{id_}", "look", None, [stored.reference()]),), by=USER)
    await site.log.append_input(site.log.subjects(session), entry, entry.id)


async def test_attachments_come_along_into_the_life_that_has_them(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        store = JetStreamAttachments(site.connection, AttachmentSettings())
        old, new = site.log.subjects("old"), site.log.subjects("new")
        await attached(site, "old", "gone", b"before")
        deleted = Entry("delete:1", now_ms(), (SessionDeleted(),), by=USER)
        begun = (await site.log.append_input(old, deleted, deleted.id)).seq
        await site.log.forget_before(old, begun)
        data = os.urandom(300_000)
        await attached(site, "old", "a", data, begun)
        await attached(site, "old", "b", b"", begun)
        lines = [line async for line in exported(site.log, old, store)]
        await restore(site.log, new, given(lines), attachments=store)
        state = (await load(site.log, new)).state
        place = AttachmentPlace("new", state.deleted_seq)
        found = await store.listed(place)
        assert [(a.id, a.used, a.by, a.at) for a in found] == [("a", True, "user-1", 5), ("b", True, "user-1", 5)]
        assert b"".join([piece async for piece in store.read(place, found[0])]) == data
        again = await restore(site.log, new, given(lines), into=Into.PART, attachments=store)
        assert again.written == 0
        await restore(site.log, new, given(lines), into=Into.SAME, attachments=store)
        await store.remove(place, found[1])
        with pytest.raises(CarryingError, match="lacks the attachment 'b'"):
            await restore(site.log, new, given(lines), into=Into.SAME, attachments=store)
        await restore(site.log, new, given(lines), into=Into.PART, attachments=store)
        assert len(await store.listed(place)) == 2


async def test_lines_of_attachments_that_are_spoilt_leave_nothing(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        store = JetStreamAttachments(site.connection, AttachmentSettings())
        await attached(site, "old", "a", b"abc")
        whole = [line async for line in exported(site.log, site.log.subjects("old"), store)]
        assert [orjson.loads(line).keys() for line in whole[-2:]] == [{"attachment": 0}.keys(), {"piece": 0}.keys()]
        for n, bad in enumerate((b'{"piece":"!"}', b'{"piece":"YWJk"}', b'{"piece":7}')):
            subjects = site.log.subjects(f"new-{n}")
            with pytest.raises(CarryingError):
                await restore(site.log, subjects, given([*whole[:-1], bad]), attachments=store)
            assert await store.listed(AttachmentPlace(f"new-{n}", 0)) == []
        with pytest.raises(CarryingError):
            await restore(
                site.log, site.log.subjects("new-9"), given([*whole[:-2], b'{"attachment":{}}']), attachments=store
            )
