"""Clients that send as much as they are let, or hold on to what they have, in a process of their own (`main`).

Each socket says its beginning (a request, or more), then one thing again and again, as fast as the kernel takes it, or a
byte at a time. Nothing is parsed. A socket that is ended is opened anew. Until the standard input ends; then one line of
JSON says what came of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from dataclasses import dataclass

import orjson

_READ_BYTES = 1 << 16
_ROUND_S = 0.02
_AGAIN_S = 0.05
"""How long it takes until a socket that was ended is opened again."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What each of `sockets` does. Texts are bytes in Latin-1, so that they may be told as JSON."""

    host: str
    port: int
    sockets: int
    beginning: str
    """Sent first, whole."""
    upgraded: str = ""
    """Sent once the server has answered 101, if there is anything."""
    again: str = ""
    """Sent again and again."""
    every_s: float = 0.0
    """A byte of `again` in so many seconds; 0: as fast as it goes."""
    reads: bool = False
    """It takes what it is sent."""
    leaves: bool = False
    """It goes as soon as it is upgraded, and comes again."""


class _Hostile:
    """One socket of an attack."""

    def __init__(self, attack: Attack, number: int) -> None:
        self.sent = 0
        self._attack = attack
        self._again = attack.again.encode("latin-1")
        self._at = 0
        self._due = 0.0
        self._unsent = attack.beginning.encode("latin-1")
        self._upgraded = not attack.upgraded
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.bind((f"127.0.0.{100 + number % 20}", 0))
        self.sock.connect_ex((attack.host, attack.port))

    def act(self, now: float) -> None:
        """Goes on, as far as it is let. Raises OSError once the server has ended it."""
        self._read()
        if self._unsent:
            self._unsent = self._unsent[self._send(self._unsent) :]
        if self._unsent or not self._upgraded:
            return
        if self._attack.leaves:
            raise ConnectionResetError
        if not self._again:
            return
        if self._attack.every_s:
            if now >= self._due:
                self._due = now + self._attack.every_s
                self._at = (self._at + self._send(self._again[self._at : self._at + 1])) % len(self._again)
            return
        while count := self._send(self._again[self._at :]):
            self._at = (self._at + count) % len(self._again)
            if time.monotonic() - now > _ROUND_S:
                return

    def _read(self) -> None:
        if self._upgraded and not self._attack.reads:
            return
        with contextlib.suppress(BlockingIOError):
            data = self.sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError
            if not self._upgraded and b"\r\n\r\n" in data:
                self._upgraded = True
                self._unsent += self._attack.upgraded.encode("latin-1")

    def _send(self, data: bytes) -> int:
        try:
            count = self.sock.send(data)
        except BlockingIOError:
            return 0
        self.sent += count
        return count


def attack(asked: Attack) -> dict[str, float]:
    """Until the standard input ends."""
    open_ones: dict[int, _Hostile] = {}
    closed_at = [0.0] * asked.sockets
    told = {"sent_bytes": 0.0, "opened": 0.0, "cpu_s": 0.0}
    ended = select.poll()
    ended.register(0, select.POLLIN)
    while not ended.poll(0):
        now = time.monotonic()
        for number in range(asked.sockets):
            if number not in open_ones and now - closed_at[number] > _AGAIN_S:
                open_ones[number] = _Hostile(asked, number)
                told["opened"] += 1
            if (one := open_ones.get(number)) is None:
                continue
            try:
                one.act(now)
            except OSError as error:
                if isinstance(error, BlockingIOError) or error.errno == 107:  # not connected yet
                    continue
                told["sent_bytes"] += one.sent
                open_ones.pop(number).sock.close()
                closed_at[number] = now
        time.sleep(0.001)
    used = os.times()
    sent = told["sent_bytes"] + sum(one.sent for one in open_ones.values())
    return {**told, "sent_bytes": sent, "cpu_s": used.user + used.system}


def main() -> None:
    """What the process does: its argument is the attack, as JSON."""
    print(orjson.dumps(attack(Attack(**orjson.loads(sys.argv[1])))).decode(), flush=True)
