"""A model behind an API, as an agent: asked, its tools executed, asked again, until it has answered.

What differs between providers is a `Provider`: how a request is written, and what the events of an answer mean.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from agent_worker.adapters import conversation
from agent_worker.adapters.conversation import DEFAULT_LIMITS, AssistantTurn, Limits, ToolTurn, ToolUse, Turn, UserTurn
from agent_worker.adapters.declaring import AnyTool, ToolSource
from agent_worker.adapters.http import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUTS,
    Broken,
    Caller,
    HttpRequest,
    Retries,
    Timeouts,
    calling,
)
from agent_worker.adapters.sse import ServerEvent
from agent_worker.adapters.toolbox import Toolbox, opened
from agent_worker.context import SessionContext
from agent_worker.errors import ModelFailed, TooManyRounds
from agent_worker.using_models import Usage
from broker.errors import RunErrorCode

GO_ON = (
    "(Your answer was interrupted after the text above. Go on exactly where it ended, and do not repeat any of it or "
    "mention the interruption.)"
)


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer's text, or of the reasoning before it."""

    text: str
    reasoning: bool = False


class Answer(Protocol):
    """One answer as it comes: made by a provider for each request."""

    usage: Usage | None
    finish_reason: str | None

    def take(self, event: ServerEvent) -> Iterable[Said]:
        """What an event says. Raises Broken, ModelFailed."""
        ...

    @property
    def over(self) -> bool:
        """Nothing comes after this."""
        ...

    @property
    def whole(self) -> bool:
        """The answer has come to its end, though something may come after it."""
        ...

    def turn(self, text: str) -> AssistantTurn:
        """The whole answer, whose text is known."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked."""

    system: str
    turns: Sequence[Turn]
    tools: Sequence[AnyTool]


class Provider(Protocol):
    """How a model is asked."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    def request(self, question: Question) -> HttpRequest:
        """Raises ModelFailed if there is no key."""
        ...

    def answer(self) -> Answer: ...


System = str | Callable[[SessionContext], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ModelLoop:
    """An agent's function for a model. `steps` bounds how often the model is asked in a run; with `prefill` an answer that
    was cut off is gone on with by giving the model its beginning, instead of asking it to go on.
    """

    provider: Provider
    system: System
    tools: Sequence[AnyTool]
    sources: Sequence[ToolSource]
    limits: Limits = DEFAULT_LIMITS
    retries: Retries = DEFAULT_RETRIES
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    steps: int = 32
    prefill: bool = False

    async def run(self, ctx: SessionContext) -> None:
        """Raises ModelFailed, TooManyRounds, and what a SessionContext raises."""
        async with (
            opened(ctx, self.tools, self.sources) as toolbox,
            calling(self.retries, self.timeouts, ctx.model_retried, trace=ctx.trace.headers) as caller,
        ):
            system = self.system if isinstance(self.system, str) else await self.system(ctx)
            await _Talk(self, ctx, toolbox, caller, system).run()


@dataclass(slots=True)
class _Talk:
    """One attempt of a run."""

    loop: ModelLoop
    ctx: SessionContext
    toolbox: Toolbox
    caller: Caller
    system: str
    turns: list[Turn] = field(default_factory=list)

    async def run(self) -> None:
        if await self._nothing_left():
            return
        for _ in range(self.loop.steps):
            async with self.ctx.step("model"):
                answer = await self._ask()
            self.turns.append(answer)
            if answer.calls:
                self._results(await self.toolbox.run(answer.calls))
            else:
                self.ctx.end_message()
            inputs = await self.ctx.take_steering()
            self.turns += await conversation.steered(self.ctx, inputs, self.loop.limits)
            if not answer.calls and not inputs:
                return
        raise TooManyRounds(f"the model was asked {self.loop.steps} times in this run, and still calls tools")

    async def _nothing_left(self) -> bool:
        """Reads what was before, and ends what an earlier attempt of the run has begun."""
        past = await conversation.read(self.ctx, self.loop.limits)
        self.turns = past.turns
        if self.ctx.attempt == 1:
            return False
        done = await self.toolbox.left_open(past.unfinished)
        if done:
            self.turns.append(AssistantTurn(calls=tuple(use for use, _ in done)))
            self._results(done)
        inputs = await self.ctx.take_steering()
        self.turns += await conversation.steered(self.ctx, inputs, self.loop.limits)
        return past.answered and not done and not inputs

    def _results(self, done: Sequence[tuple[ToolUse, str]]) -> None:
        chars = self.loop.limits.result_chars
        self.turns.append(ToolTurn({use.id: (use.name, conversation.clip(text, chars)) for use, text in done}))

    async def _ask(self) -> AssistantTurn:
        """One answer, whole. While the run is held, or after the answer broke off, the model is asked to go on."""
        said, streams = "", 0
        while True:
            streams += 1
            await self.ctx.released()
            try:
                answer, more, held = await self._stream(said)
            except _BrokenOff as off:
                said += off.said
                await self.caller.wait(off.broken)
                continue
            said += more
            if not held:
                self.caller.worked()
                turn = answer.turn(said)
                # What the provider said in its own form is all of it only if it came in one piece.
                return turn if streams == 1 else replace(turn, native=None)

    async def _stream(self, said: str) -> tuple[Answer, str, bool]:
        """Says what the model says; returns the answer, what was said of it now, and whether the run is held."""
        provider, parts = self.loop.provider, list[str]()
        answer = provider.answer()
        async with self.ctx.model_call(provider.name, provider.model) as call:
            try:
                async with aclosing(self.caller.events(provider.request(self._question(said)))) as events:
                    held = await self._say(events, answer, parts)
                if not held and not answer.whole:
                    text = "the model's answer ended before its end"
                    raise Broken(ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, text))
            except Broken as broken:
                raise _BrokenOff(broken, "".join(parts)) from broken
            finally:
                call.usage, call.finish_reason = answer.usage, answer.finish_reason
        return answer, "".join(parts), held

    async def _say(self, events: AsyncIterator[ServerEvent], answer: Answer, parts: list[str]) -> bool:
        """Returns whether it was left because the run is held."""
        async for event in events:
            if self.ctx.held:
                # The model generates ahead of what is taken from it; what is not said here it says again.
                return True
            for piece in answer.take(event):
                if piece.reasoning:
                    await self.ctx.reasoning(piece.text)
                else:
                    parts.append(piece.text)
                    await self.ctx.text(piece.text)
            if answer.over:
                break
        return False

    def _question(self, said: str) -> Question:
        turns = list(self.turns)
        if said:
            conversation.append(turns, AssistantTurn(said, partial=True))
        last = turns[-1] if turns else None
        if isinstance(last, AssistantTurn) and last.partial and not self.loop.prefill:
            turns[-1] = replace(last, partial=False)
            turns.append(UserTurn(GO_ON))
        return Question(self.system, turns, list(self.toolbox.tools.values()))


class _BrokenOff(Exception):
    """An answer broke off after some of it was said."""

    def __init__(self, broken: Broken, said: str) -> None:
        self.broken = broken
        self.said = said
        super().__init__(str(broken))


def parsed(event: ServerEvent) -> Any:
    """The JSON object of an event. Raises Broken for anything else."""
    try:
        found = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Broken(
            ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, "the model's service sent an event that is no JSON object")
        )
    return found
