"""`antiphon demo`: `antiphon dev` with the real model as a child, a first question, and a chat."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_worker.agents.local import llama, weights
from antiphon.chat import chat
from antiphon.place import Place
from antiphon.talk import access
from broker.errors import ConfigError
from broker.jetstream.child import ChildProcess, try_lock

_QUESTION = "Explain in two or three sentences why the sky is blue."
_READY_WAIT_S = 60.0


async def run_demo(place: Place, port: str) -> int:
    """Returns when the user leaves the chat. Raises ConfigError."""
    weights()
    llama()
    place.make()
    async with _dev(place, port) as lines:
        print("\n".join(lines), flush=True)
        print("\nOpen a link above to join from the page. The first question is asked for you:\n", flush=True)
        return await chat(access(place, None, None, os.environ.get("USER", "me")), "demo", first=_QUESTION)


@asynccontextmanager
async def _dev(place: Place, port: str) -> AsyncIterator[list[str]]:
    """A running `antiphon dev`; yields what it says when it is ready."""
    lock = try_lock(place.path / "demo.lock")
    if lock is None:
        raise ConfigError(f"a demo runs already in {place.path}; stop it, or choose --data")
    output = place.path / "dev.log"
    command = (sys.executable, "-m", "antiphon", "dev", "--agent", "local", "--data", str(place.path), "--port", port)
    child = await ChildProcess.spawn(command, lock=lock, output=output, on_exit=lambda _: None)
    try:
        yield await _ready_lines(child, place)
    finally:
        with contextlib.suppress(ProcessLookupError):
            await child.stop(15.0)
        os.close(lock)


async def _ready_lines(child: ChildProcess, place: Place) -> list[str]:
    output = place.path / "dev.log"
    try:
        async with asyncio.timeout(_READY_WAIT_S):
            while child.returncode is None:
                lines = [line for line in output.read_text(encoding="utf-8").splitlines() if not line.startswith("{")]
                if any(line.startswith("ready ") for line in lines) and place.running() is not None:
                    return [line for line in lines if "#session=" in line or line.startswith("ready")]
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise ConfigError(f"it did not become ready in {_READY_WAIT_S:g} s; see {output}") from None
    lines = output.read_text(encoding="utf-8").strip().splitlines()
    raise ConfigError(lines[-1].removeprefix("antiphon: ") if lines else f"it ended at once; see {output}")
