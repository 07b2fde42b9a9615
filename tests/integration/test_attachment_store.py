"""The store of attachments over real servers: whole or not there, in one session only, gone with it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.attachments import Attachment
from broker.config import AttachmentSettings, LogSettings, NatsSettings
from broker.errors import AttachmentGone, LogFull
from broker.jetstream.attachments import PIECE_BYTES, JetStreamAttachments, forget_before
from broker.jetstream.connection import Connection
from broker.jetstream.topology import ATTACHMENT_STREAM, Topology
from broker.subjects import AttachmentPlace
from tests.support.nats import NatsNode, cluster, single_server

PLACE = AttachmentPlace("demo", 0)
SIZES = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES + 7)


@asynccontextmanager
async def opened(
    url: str, log: LogSettings | None = None, **settings: float
) -> AsyncIterator[tuple[Connection, JetStreamAttachments]]:
    async with Connection(NatsSettings(nats_url=url), name="test") as connection:
        await Topology(connection, log or LogSettings(partitions=2)).apply()
        yield connection, JetStreamAttachments(connection, AttachmentSettings(**settings))  # type: ignore[arg-type]


def described(id_: str, data: bytes) -> Attachment:
    return Attachment(id_, "a.bin", "application/x-bytes", len(data), hashlib.sha256(data).hexdigest(), "user-1", 1)


async def put(store: JetStreamAttachments, id_: str, data: bytes, place: AttachmentPlace = PLACE) -> Attachment | None:
    async with store.upload(place, id_) as upload:
        for start in range(0, len(data), 50_000):
            await upload.write(data[start : start + 50_000])
        return await upload.commit(described(id_, data))


async def got(store: JetStreamAttachments, attachment: Attachment, *span: int, place: AttachmentPlace = PLACE) -> bytes:
    return b"".join([part async for part in store.read(place, attachment, *span)])


async def held(connection: Connection) -> dict[str, int]:
    """Messages of the stream by subject."""
    answer = await connection.api(f"STREAM.INFO.{ATTACHMENT_STREAM}", {"subjects_filter": "att.*.>"})
    return {k: v for k, v in (answer["state"].get("subjects") or {}).items() if k != "att.sweep"}


async def test_what_is_put_in_comes_out(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as (_, store):
        for number, size in enumerate(SIZES):
            data = os.urandom(size)
            stored = await put(store, f"a{number}", data)
            assert stored is not None
            found = await store.find(PLACE, f"a{number}")
            assert found == stored
            assert (found.size, found.used, found.sha256) == (size, False, hashlib.sha256(data).hexdigest())
            assert await got(store, found) == data
            for first, last in ((0, 0), (size // 2, size - 1), (PIECE_BYTES - 1, PIECE_BYTES), (size - 1, size - 1)):
                if 0 <= first <= last < size:
                    assert await got(store, found, first, last) == data[first : last + 1]
        assert [a.id for a in await store.listed(PLACE)] == [f"a{n}" for n in range(len(SIZES))]


async def test_nobody_sees_an_upload_that_is_not_committed(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as (connection, store):
        async with store.upload(PLACE, "a") as upload:
            await upload.write(os.urandom(3 * PIECE_BYTES))
            assert await store.find(PLACE, "a") is None
            assert await store.listed(PLACE) == []
            assert len(await held(connection)) == 2
        assert await held(connection) == {}


async def test_of_two_uploads_of_one_id_the_first_to_end_counts(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as (connection, store):
        one, other = os.urandom(PIECE_BYTES + 5), os.urandom(PIECE_BYTES + 6)
        async with store.upload(PLACE, "a") as first, store.upload(PLACE, "a") as second:
            await first.write(one)
            await second.write(other)
            assert await second.commit(described("a", other)) is not None
            assert await first.commit(described("a", one)) is None
        found = await store.find(PLACE, "a")
        assert found is not None
        assert await got(store, found) == other
        assert sum(".data." in subject for subject in await held(connection)) == 1


async def test_one_that_nothing_uses_runs_out_and_one_that_is_used_stays(nats_server: NatsNode) -> None:
    async with opened(nats_server.url, attachment_unused_s=1) as (_, store):
        await put(store, "kept", b"kept")
        used = await store.use(PLACE, "kept")
        assert used is not None
        assert used.used
        assert await store.use(PLACE, "kept") == used
        await put(store, "lost", b"lost")
        async with asyncio.timeout(30):
            while await store.find(PLACE, "lost") is not None:
                await asyncio.sleep(0.1)
        assert await store.use(PLACE, "lost") is None
        found = await store.find(PLACE, "kept")
        assert found == used
        assert await got(store, found) == b"kept"


async def test_a_sweep_deletes_what_was_cut_short_and_nothing_else(
    nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.jetstream.attachments._SLACK_S", -1.0)
    async with opened(nats_server.url, attachment_upload_s=1.0, attachment_sweep_s=0.1) as (connection, store):
        cut = store.upload(PLACE, "cut")
        upload = await cut.__aenter__()
        await upload.write(os.urandom(2 * PIECE_BYTES))
        await put(store, "fresh", b"fresh")
        await put(store, "used", b"used")
        await store.use(PLACE, "used")
        assert await store.sweep() == 1
        left = await held(connection)
        assert not any(".cut." in subject for subject in left)
        assert {s for s in left if ".up." in s} == {s for s in left if ".fresh.up." in s}
        used = await store.find(PLACE, "used")
        assert used is not None
        assert await got(store, used) == b"used"
        with pytest.raises(AttachmentGone):
            await upload.write(os.urandom(PIECE_BYTES))
        upload.committed = True
        await cut.__aexit__(None, None, None)


async def test_one_process_sweeps_at_a_time(nats_server: NatsNode) -> None:
    async with opened(nats_server.url, attachment_sweep_s=60) as (_, store):
        assert await store._my_turn()
        assert not await store._my_turn()


async def test_a_deletion_takes_what_was_before_it_and_ends_uploads(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as (connection, store):
        again, other = AttachmentPlace("demo", 7), AttachmentPlace("demo-2", 0)
        for place in (PLACE, again, other):
            await put(store, "a", b"a", place)
            await store.use(place, "a")
        async with store.upload(PLACE, "b") as upload:
            await forget_before(connection, "demo", 7)
            with pytest.raises(AttachmentGone):
                await upload.write(os.urandom(PIECE_BYTES))
        async with store.upload(PLACE, "c") as upload:
            await forget_before(connection, "demo", 7)
            with pytest.raises(AttachmentGone):
                await upload.commit(described("c", b""))
        assert await store.listed(PLACE) == []
        assert [a.id for a in await store.listed(again)] == [a.id for a in await store.listed(other)] == ["a"]
        assert not any(subject.startswith("att.demo.0.") for subject in await held(connection))


async def test_what_is_used_meanwhile_is_not_removed(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as (connection, store):
        found = await put(store, "a", b"a")
        assert found is not None
        used = await store.use(PLACE, "a")
        assert used is not None
        assert not await store.remove(PLACE, found)
        assert await store.find(PLACE, "a") == used
        assert await store.remove(PLACE, used)
        assert await store.find(PLACE, "a") is None
        assert await held(connection) == {}
        with pytest.raises(AttachmentGone):
            await got(store, used)
        assert await put(store, "a", b"again") is not None


async def test_attachments_leave_room_for_the_logs(nats_server: NatsNode) -> None:
    log = LogSettings(partitions=2, attachments_bytes=4 * PIECE_BYTES)
    async with opened(nats_server.url, log) as (connection, store):
        await put(store, "a", os.urandom(2 * PIECE_BYTES))
        with pytest.raises(LogFull, match="full"):
            await put(store, "b", os.urandom(3 * PIECE_BYTES))
        assert not any(".b." in subject for subject in await held(connection))
        await connection.publish("s.00.demo.r.in", b"{}")


async def test_in_a_cluster_whose_leader_dies(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        log = LogSettings(partitions=1, replicas=3)
        async with opened(",".join(nodes.urls), log) as (_, store):
            data = os.urandom(6 * PIECE_BYTES + 3)
            async with store.upload(PLACE, "a") as upload:
                await upload.write(data[: 3 * PIECE_BYTES])
                await nodes.kill(await nodes.stream_leader(ATTACHMENT_STREAM))
                async with asyncio.timeout(60):
                    await upload.write(data[3 * PIECE_BYTES :])
                assert await upload.commit(described("a", data)) is not None
            found = await store.use(PLACE, "a")
            assert found is not None
            assert await got(store, found) == data


async def test_the_largest_takes_little_memory(tmp_path: Path) -> None:
    """Pieces are as many as there are, whatever the size: what is held is one of them, and a few while reading."""
    async with single_server(tmp_path) as server, opened(server.url) as (_, store):
        part = os.urandom(1 << 20)
        async with store.upload(PLACE, "a") as upload:
            for _ in range(64):
                await upload.write(part)
                assert len(upload._waiting) < PIECE_BYTES
            stored = await upload.commit(described("a", part * 64))
        assert stored is not None
        assert len(stored.pieces) == 512
        digest = hashlib.sha256()
        async for piece in store.read(PLACE, stored):
            digest.update(piece)
        assert digest.hexdigest() == stored.sha256
