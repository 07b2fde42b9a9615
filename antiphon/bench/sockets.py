"""Many sockets that read what a server sends, in one cheap process (`main`).

What is measured must not be the reader. So nothing is parsed: of each chunk that the kernel gives, C code counts
the marks that every event carries (`MARK`). Once in a while the time that stands
behind a mark is read, which gives a sample of the latency. Pings are not answered: tell the server to send none.

It is told what to do by lines of JSON on its standard input, and answers each with one line; see `Crowd` for the other
end. A server is reached by WebSocket or by a plain HTTP stream, so peers are read by the same code.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

MARK = b"^~0"
"""Begins the time that stands once in each event: nanoseconds of the monotonic clock, in `TIME_DIGITS` digits of which
the first is 0. It cannot be part of the head of a WebSocket's frame."""
TIME_DIGITS = 19
_BUFFER = 1 << 18
_CARRY = 64
"""Bytes kept of the chunk before, so that what lies across two chunks is counted."""
_SAMPLE_EVERY = 16
"""One chunk of so many gives a latency, if nothing else is wished."""
_CONNECTING = 128
"""Sockets that are being opened at once."""


@dataclass(slots=True)
class _Socket:
    number: int
    sock: socket.socket
    unsent: bytes
    begun: float
    upgraded: bool = False
    ready: bool = False
    seen: bytes = b""
    """What has come before it was ready; after that, the last bytes, of which a frame's beginning may be part."""


@dataclass(slots=True)
class _Opening:
    """What is asked of the sockets that are to be opened, and how far that is."""

    address: tuple[str, int]
    request: bytes
    frames: list[bytes]
    ready: bytes
    receive_buffer: int
    """Bytes that the kernel may keep for a reader; 0: as many as it likes."""
    group: int
    """So many readers in a row have one `{g}` and one `{after}`."""
    after: list[str]
    waiting: deque[int]
    left: int
    begun: float
    took_ms: list[float] = field(default_factory=list)

    def numbered(self, template: bytes, number: int) -> bytes:
        """With the reader's number for `{i}`, that of its group for `{g}`, and the group's cursor for `{after}`."""
        group = number // self.group
        filled = template.replace(b"{i}", b"%d" % number).replace(b"{g}", b"%d" % group)
        return filled.replace(b"{after}", self.after[group].encode()) if self.after else filled


class Sockets:
    """The loop of the process."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll.register(0, select.EPOLLIN)
        self._buffer = bytearray(_CARRY + _BUFFER)
        self._view = memoryview(self._buffer)
        self._sockets: dict[int, _Socket] = {}
        self._opening: _Opening | None = None
        self._connecting = 0
        self._marks = self._bytes = self._chunks = self._closed = 0
        self._latencies_ms: list[float] = []
        self._sample_every = _SAMPLE_EVERY

    def run(self) -> None:
        """Until the standard input ends."""
        pending = b""
        while True:
            self._open_more()
            for fd, _ in self._epoll.poll(0.01 if self._opening else -1, 512):
                if fd == 0:
                    line = os.read(0, 1 << 20)
                    if not line:
                        return
                    *lines, pending = (pending + line).split(b"\n")
                    for told in lines:
                        self._do(orjson.loads(told))
                elif (connection := self._sockets.get(fd)) is not None:
                    self._serve(connection)

    # --- commands ------------------------------------------------------------------------------------------------------

    def _do(self, told: dict[str, Any]) -> None:
        match told["do"]:
            case "open":
                self._opening = _Opening(
                    address=(told["host"], told["port"]),
                    request=told["request"].encode(),
                    frames=[frame.encode() for frame in told["frames"]],
                    ready=told["ready"].encode(),
                    receive_buffer=told["receive_buffer"],
                    group=told["group"],
                    after=told["after"],
                    waiting=deque(range(told["first"], told["first"] + told["count"])),
                    left=told["count"],
                    begun=time.monotonic(),
                )
            case "count":
                self._answer(self._counted())
            case "forget":
                self._marks = self._bytes = self._chunks = 0
                self._latencies_ms.clear()
                self._sample_every = told.get("sample_every") or self._sample_every
                self._answer({})
            case "stall":
                for fd in list(self._sockets)[: told["count"]]:
                    self._epoll.unregister(fd)
                self._answer({})
            case "close":
                for connection in list(self._sockets.values()):
                    self._close(connection)
                self._closed = 0
                self._answer({})

    def _answer(self, answer: dict[str, Any]) -> None:
        os.write(1, orjson.dumps(answer) + b"\n")

    def _counted(self) -> dict[str, Any]:
        used = os.times()
        return {
            "marks": self._marks,
            "bytes": self._bytes,
            "closed": self._closed,
            "open": len(self._sockets),
            "latencies_ms": sorted(self._latencies_ms),
            "cpu_s": used.user + used.system,
        }

    # --- opening -------------------------------------------------------------------------------------------------------

    def _open_more(self) -> None:
        opening = self._opening
        if opening is None:
            return
        while opening.waiting and self._connecting < _CONNECTING:
            number = opening.waiting.popleft()
            sock = socket.socket()
            sock.setblocking(False)
            if opening.receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, opening.receive_buffer)
            # As many source addresses as are needed: one has 28,000 ports towards one server. They are chosen in connecting,
            # for by then it is known which server it is, and what was used towards another is free.
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.0.{2 + number // 20_000}", 0))
            sock.connect_ex(opening.address)
            request = opening.numbered(opening.request, number)
            self._sockets[sock.fileno()] = _Socket(number, sock, request, time.monotonic())
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
            self._connecting += 1

    def _serve(self, connection: _Socket) -> None:
        try:
            if connection.unsent:
                self._send(connection)
            elif connection.ready:
                self._take(connection)
            else:
                self._greet(connection)
        except OSError:
            self._close(connection)

    def _send(self, connection: _Socket) -> None:
        sent = connection.sock.send(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        if not connection.unsent:
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _greet(self, connection: _Socket) -> None:
        opening = self._opening
        assert opening is not None
        data = connection.sock.recv(_BUFFER)
        if not data:
            self._close(connection)
            return
        connection.seen += data
        if not connection.upgraded:
            head, end, rest = connection.seen.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head and b" 200 " not in head:
                sys.exit(f"refused: {head.decode(errors='replace')}")
            connection.upgraded, connection.seen = True, rest
            frames = (opening.numbered(frame, connection.number) for frame in opening.frames)
            connection.unsent = b"".join(map(masked, frames))
            if connection.unsent:
                self._epoll.modify(connection.sock.fileno(), select.EPOLLOUT)
                return
        if opening.ready in connection.seen:
            self._became_ready(opening, connection)

    def _became_ready(self, opening: _Opening, connection: _Socket) -> None:
        connection.ready, connection.seen = True, connection.seen[-_CARRY:]
        self._connecting -= 1
        opening.left -= 1
        opening.took_ms.append((time.monotonic() - connection.begun) * 1000)
        if not opening.left:
            self._answer({"took_s": time.monotonic() - opening.begun, "took_ms": sorted(opening.took_ms)})
            self._opening = None

    def _close(self, connection: _Socket) -> None:
        del self._sockets[connection.sock.fileno()]
        connection.sock.close()
        self._closed += 1
        if not connection.ready:
            sys.exit(f"socket {connection.number} was closed before it was ready: {connection.seen[-500:]!r}")

    # --- reading -------------------------------------------------------------------------------------------------------

    def _take(self, connection: _Socket) -> None:
        count = connection.sock.recv_into(self._view[_CARRY:])
        if not count:
            self._close(connection)
            return
        end = _CARRY + count
        marks = self._counted_in(connection, end, MARK)
        self._marks += marks
        self._bytes += count
        connection.seen = bytes(self._view[max(_CARRY, end - _CARRY) : end])
        self._chunks += 1
        if marks and self._chunks % self._sample_every == 0:
            self._sample(end)

    def _counted_in(self, connection: _Socket, end: int, what: bytes) -> int:
        """How often it stands in the chunk that ends there, or begins in the one before: all but its last byte may."""
        carried = connection.seen[1 - len(what) :]
        start = _CARRY - len(carried)
        self._buffer[start:_CARRY] = carried
        return self._buffer.count(what, start, end)

    def _sample(self, end: int) -> None:
        """The oldest event of the chunk is the one that has waited longest."""
        at = self._buffer.find(MARK, _CARRY, end) + len(MARK) - 1
        said = bytes(self._view[at : at + TIME_DIGITS])
        if at + TIME_DIGITS <= end and said.isdigit():
            self._latencies_ms.append((time.monotonic_ns() - int(said)) / 1e6)


def masked(payload: bytes) -> bytes:
    """A text message of a client (RFC 6455): masked, as it must be, with zeros, which change nothing."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


def upgrade(path: str, host: str, port: int, protocol: str = "") -> str:
    """The request that opens a WebSocket."""
    key = base64.b64encode(bytes(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    return "\r\n".join([*lines, "", ""])


def main() -> None:
    """What the process does."""
    Sockets().run()
