"""Real servers for tests in other languages: `python -m tests.support.served POOL …`.

Starts a nats-server and, as it is told, gateways and workers. A line in is a command as JSON, a line out its answer:
`{"gateway": {…}}`, `{"worker": "module:agent", "pool": "p"}` → `{"number": 0, "url": "http://…"}`;
`{"start": [{"gateway": …}, …]}` of several of them at once → `{"started": […]}`;
`{"kill": 0}`, `{"terminate": 0}`, `{"output": 0}` of a process by its number; `{"token": {claims}, "ttl_s": 60}`.
Ends, and everything with it, when its input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jwt

from tests.support.nats import single_server
from tests.support.stack import Process, Stack


def _token(stack: Stack, claims: dict[str, Any], ttl_s: float) -> str:
    secret = (stack.directory / "secret").read_text()
    whole = {"sub": "user-1", "exp": time.time() + ttl_s, "sessions": {"*": ["admin"]}, **claims}
    return jwt.encode(whole, secret, "HS256")


def _numbered(stack: Stack, process: Process) -> dict[str, Any]:
    return {"number": stack.processes.index(process), "url": process.url}


async def _answer(stack: Stack, command: dict[str, Any]) -> dict[str, Any]:
    match command:
        case {"gateway": env}:
            return _numbered(stack, await stack.gateway(**env))
        case {"worker": agent, "pool": pool}:
            return _numbered(stack, await stack.worker(agent, pool=pool))
        case {"start": [*commands]}:
            async with asyncio.TaskGroup() as tasks:
                starting = [tasks.create_task(_answer(stack, each)) for each in commands]
            return {"started": [task.result() for task in starting]}
        case {"kill": number}:
            await stack.processes[number].kill()
        case {"terminate": number}:
            await stack.processes[number].terminate()
        case {"output": number}:
            return {"text": stack.processes[number].output()}
        case {"token": claims, "ttl_s": ttl_s}:
            return {"token": _token(stack, claims, ttl_s)}
        case _:
            raise ValueError(f"unknown command: {command}")
    return {}


async def _serve(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url, env={"POOLS": ",".join(sys.argv[1:])}) as stack,
    ):
        while line := await reader.readline():
            sys.stdout.write(json.dumps(await _answer(stack, json.loads(line))) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Serves until the input ends."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_serve(Path(directory)))


if __name__ == "__main__":
    main()
