"""The commands of a connection that wait for the ones before them. Pure."""

from __future__ import annotations

from gateway.protocol import Command


class WaitingCommands:
    """In the order in which they came; bounded in number and bytes. False if there is none."""

    __slots__ = ("_bytes", "_bytes_max", "_commands", "_count_max")

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._commands: list[tuple[Command, int]] = []
        """A list, for there are few, and an empty one is small."""

    def __bool__(self) -> bool:
        return bool(self._commands)

    def has_room(self, size: int) -> bool:
        """For one more, of so many bytes; the first one may have as many as it likes."""
        fits = not self._commands or self._bytes + size <= self._bytes_max
        return fits and len(self._commands) < self._count_max

    def put(self, command: Command, size: int) -> None:
        self._commands.append((command, size))
        self._bytes += size

    def next(self) -> Command:
        """Takes the oldest out."""
        command, size = self._commands.pop(0)
        self._bytes -= size
        return command
