"""The network between the parts: namespaces whose links may be cut, or, without the rights for that, loopback.

Each part has a namespace with one address; a bridge in a namespace of its own joins them, and the runner has one end in
it. Nothing of the machine's own network is touched, but for one interface of the runner's that goes with the bridge.

A link from A to B is cut by a neighbour entry in A that leads nowhere: A's packets for B are lost in silence, as they
are when a switch dies, and neither side is told. It works one way or both ways, for connections that there are and for
new ones, and needs nothing but iproute2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

RUNNER = "runner"
"""The name of the process that runs the suite, and its clients."""
_NOWHERE = "02:00:00:00:00:01"
_PREFIX = "chaos-"
_COMMANDS = ("ip", "nsenter")
_END_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


class Network(Protocol):
    """Where the parts are."""

    can_cut: bool

    def address(self, name: str) -> str:
        """The address of a part, or of the runner."""
        ...

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        """What starts a process of a part at its place; it does not outlive the runner where that can be arranged."""
        ...

    async def cut(self, source: str, target: str) -> None:
        """What one sends to the other is lost from now on."""
        ...

    async def heal(self) -> None:
        """Every link passes everything again."""
        ...


def free_subnet() -> int:
    """The number of a network (`10.231.N.0/24`) to which this machine has no way yet."""
    ways = Path("/proc/net/route").read_text().split()
    subnets = list(range(1, 255))
    random.shuffle(subnets)
    # As the kernel writes them: in hexadecimal digits, the last byte first.
    return next(n for n in subnets if f"00{n:02X}E70A" not in ways)


def missing_for_namespaces() -> str:
    """What this machine lacks for cutting links; empty: nothing."""
    if os.geteuid() != 0:
        return "root"
    lacking = [command for command in _COMMANDS if shutil.which(command) is None]
    return f"the command {' and '.join(lacking)} (Debian: iproute2, util-linux)" if lacking else ""


class Loopback:
    """Addresses of loopback, one for each part, where no link can be cut."""

    can_cut = False

    def __init__(self, names: Sequence[str], subnet: int) -> None:
        self._addresses = {name: f"127.77.{subnet}.{n}" for n, name in enumerate((*names, RUNNER), 1)}

    def address(self, name: str) -> str:
        return self._addresses[name]

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        return [*_ending_with_us(), *argv]

    async def cut(self, source: str, target: str) -> None:
        raise AssertionError(f"no link can be cut here: {source} to {target}")

    async def heal(self) -> None:
        pass


class Namespaces:
    """A network namespace for each part."""

    can_cut = True

    def __init__(self, names: Sequence[str], subnet: int) -> None:
        self._own = f"{_PREFIX}{os.getpid()}-"
        self._device = f"chaos{os.getpid()}"
        self._addresses = {name: f"10.231.{subnet}.{n}" for n, name in enumerate((*names, RUNNER), 1)}
        self._cuts: set[tuple[str, str]] = set()

    def address(self, name: str) -> str:
        return self._addresses[name]

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self._own}{name}", *_ending_with_us(), *argv]

    async def cut(self, source: str, target: str) -> None:
        self._cuts.add((source, target))
        await _ip(*self._neighbour("replace", source, target), "lladdr", _NOWHERE, "nud", "permanent")

    async def heal(self) -> None:
        for source, target in self._cuts:
            await _ip(*self._neighbour("del", source, target))
        self._cuts.clear()

    def _neighbour(self, verb: str, source: str, target: str) -> list[str]:
        where = [] if source == RUNNER else ["-n", f"{self._own}{source}"]
        device = self._device if source == RUNNER else "eth0"
        return [*where, "neigh", verb, self._addresses[target], "dev", device]

    async def open(self) -> None:
        """Makes the namespaces and their links."""
        await _remove_left_over()
        hub = f"{self._own}hub"
        await _ip("netns", "add", hub)
        await _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        await _ip("-n", hub, "link", "set", "br0", "up")
        for name in self._addresses:
            await self._join(hub, name)

    async def _join(self, hub: str, name: str) -> None:
        device, where = "eth0", ["-n", f"{self._own}{name}"]
        if name == RUNNER:
            device, where = self._device, []
            await _ip("link", "add", device, "type", "veth", "peer", "name", f"p-{name}", "netns", hub)
        else:
            await _ip("netns", "add", f"{self._own}{name}")
            await _ip(*where, "link", "set", "lo", "up")
            await _ip("-n", hub, "link", "add", f"p-{name}", "type", "veth", "peer", "name", device, "netns", where[1])
        await _ip("-n", hub, "link", "set", f"p-{name}", "master", "br0", "up")
        await _ip(*where, "addr", "add", f"{self._addresses[name]}/24", "dev", device)
        await _ip(*where, "link", "set", device, "up")

    async def close(self) -> None:
        """Takes them away. The processes in them must have ended."""
        # It would go with its namespace, but some time after the command that removes that has returned.
        if self._device in {name for _, name in socket.if_nameindex()}:
            await _ip("link", "del", self._device)
        await _remove(self._own)


@contextlib.asynccontextmanager
async def opened(names: Sequence[str]) -> AsyncIterator[Network]:
    """Namespaces where this machine lets us have them, else loopback."""
    subnet = free_subnet()
    if missing_for_namespaces():
        yield Loopback(names, subnet)
        return
    network = Namespaces(names, subnet)
    try:
        await network.open()
        yield network
    finally:
        await network.close()


async def _remove_left_over() -> None:
    """Namespaces of runners that were killed."""
    for own in _left_over():
        await _remove(own)


def _left_over() -> list[str]:
    owns = [name.removesuffix("hub") for name in _names(_PREFIX) if name.endswith("-hub")]
    return [own for own in owns if not Path(f"/proc/{own.removeprefix(_PREFIX).rstrip('-')}").exists()]


def _names(prefix: str) -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"{prefix}*")]


async def _remove(own: str) -> None:
    for name in _names(own):
        await _ip("netns", "del", name)


async def _ip(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "ip", *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"ip {' '.join(argv)}: {said.decode()}"


def _ending_with_us() -> tuple[str, ...]:
    return _END_WITH_US if shutil.which(_END_WITH_US[0]) else ()
