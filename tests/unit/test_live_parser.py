"""The short way of live messages gives what nats-py's own parser gives, wherever the bytes are cut."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from broker.jetstream.client import LiveHandler, LiveParser

LIVE = range(1, 4)
"""Numbers of subscriptions of live sessions."""
OTHER = range(4, 7)

Heard = tuple[Any, ...]


class Client:
    """What a parser calls."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.live_handlers: dict[int, LiveHandler] = {sid: self._taker(sid) for sid in LIVE}

    def _taker(self, sid: int) -> LiveHandler:
        return lambda headers, data: self.heard.append(("msg", sid, headers, data))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        assert subject
        self.heard.append(("msg", sid, headers or b"", data))

    async def _process_ping(self) -> None:
        self.heard.append(("ping",))

    async def _process_pong(self) -> None:
        self.heard.append(("pong",))

    async def _process_err(self, error: str) -> None:
        self.heard.append(("err", error))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.heard.append(("info", info))


def headers_of(pairs: dict[str, str]) -> bytes:
    return b"NATS/1.0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in pairs.items()) + b"\r\n"


def message(sid: int, subject: str, reply: str, headers: bytes, data: bytes) -> bytes:
    words = [subject, str(sid), *([reply] if reply else [])]
    if headers:
        line = ["HMSG", *words, str(len(headers)), str(len(headers) + len(data))]
    else:
        line = ["MSG", *words, str(len(data))]
    return " ".join(line).encode() + b"\r\n" + headers + data + b"\r\n"


bodies = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"HMSG live.x 1 2 3\r\n", b"PING\r\n", b"x" * 5000])
headers = st.dictionaries(
    st.from_regex("[A-Z][a-z-]{1,8}", fullmatch=True), st.from_regex("[a-z0-9]{0,9}", fullmatch=True)
)
subjects = st.sampled_from(["live.00.demo.r.in", "live.15.a.d.main", "live", "_INBOX.x.1", "s.00.demo.r.in"])
messages = st.builds(
    message,
    st.sampled_from([*LIVE, *OTHER]),
    subjects,
    st.sampled_from(["", "_INBOX.y"]),
    st.just(b"") | headers.map(headers_of),
    bodies,
)
others = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"a":1}\r\n'])


async def heard_of(parser_of: type[Parser], chunks: list[bytes]) -> list[Heard]:
    client = Client()
    parser = parser_of(client)
    for chunk in chunks:
        await parser.parse(chunk)
    return client.heard


@given(st.lists(messages | others, max_size=12), st.lists(st.integers(1, 200), max_size=40))
def test_what_is_heard_is_what_nats_py_hears(parts: list[bytes], sizes: list[int]) -> None:
    whole, chunks = b"".join(parts), []
    for size in sizes:
        chunks.append(whole[:size])
        whole = whole[size:]
    chunks.append(whole)
    chunks = [chunk for chunk in chunks if chunk]
    assert asyncio.run(heard_of(LiveParser, chunks)) == asyncio.run(heard_of(Parser, chunks))


def test_long_messages_are_left_to_nats_py_and_come_in_their_turn() -> None:
    head = headers_of({"Nats-Sequence": "1"})
    long = message(1, "live.00.demo.d.main", "", head, b"x" * 600_000)
    short = message(1, "live.00.demo.d.main", "", head, b"y")
    whole = short + long + short
    chunks = [whole[at : at + 32_768] for at in range(0, len(whole), 32_768)]
    heard = asyncio.run(heard_of(LiveParser, chunks))
    assert [len(data) for _, _, _, data in heard] == [1, 600_000, 1]


def test_a_new_connection_begins_afresh() -> None:
    async def cut_off() -> list[Heard]:
        client = Client()
        parser = LiveParser(client)
        whole = message(1, "live.00.demo.d.main", "", headers_of({"A": "b"}), b"text")
        await parser.parse(whole[:-4])
        parser.reset()
        await parser.parse(whole)
        return client.heard

    assert [data for _, _, _, data in asyncio.run(cut_off())] == [b"text"]


def test_a_handler_that_fails_does_not_keep_messages_from_others() -> None:
    async def parse() -> list[Heard]:
        client = Client()

        def fail(_headers: bytes, _data: bytes) -> None:
            raise RuntimeError

        client.live_handlers[1] = fail
        head = headers_of({"A": "b"})
        await LiveParser(client).parse(
            message(1, "live.0.a.d", "", head, b"x") + message(2, "live.0.b.d", "", head, b"y")
        )
        return client.heard

    assert [data for _, _, _, data in asyncio.run(parse())] == [b"y"]
