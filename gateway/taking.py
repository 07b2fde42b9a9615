"""What a peer takes of what it is sent, and what comes from it, as the kernel knows.

What has left this process may wait in the kernel for minutes, and only in large steps does the kernel ask for more: so a
peer on a slow line looks from here as if it took nothing. What it has acknowledged says more.
"""

from __future__ import annotations

import array
import asyncio
import socket
import struct
import sys
from dataclasses import dataclass

ALMOST = 0.9
"""A timer that is a little early is not early."""
_TCP_INFO_BYTES = 136
_ACKED_AT = 120
"""In Linux's `struct tcp_info`: `tcpi_bytes_acked`, and after it `tcpi_bytes_received`, 64 bits each."""
_COUNTS = struct.Struct("=QQ")
_LEFT = (7, 8)
"""Its first byte, `tcpi_state`: TCP_CLOSE, TCP_CLOSE_WAIT."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a connection is. Of two of the same connection the later one says what has happened in between."""

    acked: int
    """Bytes that the peer has acknowledged; 0 where the kernel does not say."""
    received: int
    """Bytes that have come from it; likewise."""
    queued: int
    """Bytes that wait in this machine's kernel, or are on their way; likewise."""
    unsent: int
    """Bytes that wait in this process."""

    @property
    def written(self) -> int:
        """The place in the stream up to which something has been written: `acked` is there once all of it is taken."""
        return self.acked + self.queued + self.unsent

    def took_since(self, before: Progress) -> bool:
        """The peer has taken something."""
        return self.acked > before.acked or self.unsent < before.unsent

    def sent_since(self, before: Progress) -> bool:
        """Something has come from the peer."""
        return self.received > before.received


def progress(transport: asyncio.Transport) -> Progress:
    """How far a connection is now. A few microseconds."""
    return Progress(*_of_kernel(transport.get_extra_info("socket")), transport.get_write_buffer_size())


def has_left(transport: asyncio.Transport) -> bool:
    """The peer sends nothing more, or is gone: for who does not read, and so is not told. False where the kernel does not
    say.
    """
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return False
    try:
        state: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (OSError, ValueError):
        return True
    return state[0] in _LEFT


def _of_kernel(sock: socket.socket | None) -> tuple[int, int, int]:
    """Acknowledged, received, queued."""
    if sys.platform != "linux" or sock is None:
        return 0, 0, 0
    import fcntl
    import termios

    queued = array.array("i", [0])
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        # SIOCOUTQ, of the same number: what has not been acknowledged (`man 7 tcp`).
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, queued)
    except (OSError, ValueError):
        # It is closed by now.
        return 0, 0, 0
    if len(told) < _TCP_INFO_BYTES:
        return 0, 0, 0
    acked, received = _COUNTS.unpack_from(told, _ACKED_AT)
    return acked, received, queued[0]
