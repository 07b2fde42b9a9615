"""What a run's models cost: calls and tokens, as events, as metrics, and in the run's trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from agent_worker.control import RunControl
from agent_worker.metrics import TOKEN_KINDS
from agent_worker.scope import LaneScope
from agent_worker.steps import Stepping
from agent_worker.tracing import RunTrace, label
from broker.events import OtherEvent

USAGE_EVENT = "antiphon.usage"
"""The name of the CUSTOM event that says what one call of a model has cost."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call, or of several, as the model's provider counts them. Cached ones are a part of those that went in,
    reasoning a part of those that came out.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_dict(self, provider: str, model: str) -> dict[str, Any]:
        """An entry of AG-UI's `usage`; parts that are not told are left out."""
        wire: dict[str, Any] = {"provider": provider, "model": model}
        wire |= {"inputTokens": self.input_tokens, "outputTokens": self.output_tokens}
        wire["totalTokens"] = self.input_tokens + self.output_tokens
        if self.cached_input_tokens:
            wire["cachedInputTokens"] = self.cached_input_tokens
        if self.reasoning_tokens:
            wire["reasoningTokens"] = self.reasoning_tokens
        return wire


@dataclass(slots=True)
class ModelCall:
    """A call of a model that is going on: say here what it has cost, once that is known, and why it ended."""

    provider: str
    model: str
    usage: Usage | None = None
    finish_reason: str | None = None


class UsingModels(Stepping):
    """The part of a SessionContext that counts what models cost."""

    def __init__(self, scope: LaneScope, control: RunControl, run_id: str, attempt: int, trace: RunTrace) -> None:
        super().__init__(scope, control, run_id, attempt, trace)
        self._used: dict[tuple[str, str], Usage] = {}

    @property
    def usage(self) -> list[dict[str, Any]]:
        """What models have cost in this attempt so far, by provider and model; it stands in the run's RUN_FINISHED."""
        return [used.as_dict(*named) for named, used in self._used.items()]

    def model_retried(self) -> None:
        """Counts that a model is asked again after a failure."""
        self._scope.services.metrics.model_retries.inc()

    @asynccontextmanager
    async def model_call(self, provider: str, model: str) -> AsyncIterator[ModelCall]:
        """For the time of a call of a model: it is counted, has a span in the run's trace, and what it has cost
        (`call.usage`) is told by an event (CUSTOM `antiphon.usage`), also of a call that was stopped or has failed.
        """
        call = ModelCall(provider, model)
        end = "failed"
        try:
            with self._trace.span("model", "client", provider=label(provider), model=label(model)):
                yield call
            end = "done"
        except asyncio.CancelledError:
            end = "stopped"
            raise
        finally:
            self._count(call, end)

    def _count(self, call: ModelCall, end: str) -> None:
        metrics = self._scope.services.metrics
        metrics.model_calls.labels(end).inc()
        if call.usage is None:
            return
        for kind in TOKEN_KINDS:
            metrics.model_tokens.labels(kind).inc(getattr(call.usage, f"{kind}_tokens"))
        named = (call.provider, call.model)
        self._used[named] = self._used.get(named, Usage()) + call.usage
        if not self._control.ended:
            value = call.usage.as_dict(*named)
            if call.finish_reason is not None:
                value["finishReason"] = call.finish_reason
            wire = {"type": "CUSTOM", "name": USAGE_EVENT, "value": value}
            self._writer.record(OtherEvent("CUSTOM", wire))
