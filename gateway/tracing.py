"""A gateway's part in the trace of a request: a span for each command that writes, and for what live readers were given."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from broker.errors import ErrorCode, LogError, Refused
from broker.spans import NO_SPANS, Attribute, Span, Spans, child_of, now_ns
from broker.state import SessionState
from broker.tracing import TraceContext

_CAPITAL = re.compile("(?<!^)(?=[A-Z])")
_IDS = {
    "input_id": "input",
    "run_id": "run",
    "tool_call_id": "call",
    "claim_id": "claim",
    "approval_id": "approval",
    "handoff_id": "handoff",
}
"""Fields of commands that are told with their spans, and as what."""


@dataclass(frozen=True, slots=True)
class GatewayTracing:
    """Where a gateway's spans go, and its name, by which they and the entries that it stores say whose they are."""

    gateway: str | None = None
    spans: Spans = NO_SPANS

    def command(self, command: object, session: str, given: TraceContext | None) -> CommandTrace:
        """The trace of a command; `given` is the client's span, if it named one."""
        return CommandTrace(self, command, session, given)

    def deliveries(self, session: str) -> Deliveries | None:
        """For a feed; None if nobody takes spans."""
        return Deliveries(self, session) if self.spans.enabled else None


class CommandTrace:
    """A command's span: `with tracing.command(…) as trace`. It continues the client's trace, else that of the run the
    command is about, else it begins one. A command that writes nothing, in nobody's trace, leaves no span.
    """

    def __init__(self, tracing: GatewayTracing, command: object, session: str, given: TraceContext | None) -> None:
        self.gateway = tracing.gateway
        self._spans = tracing.spans
        self._command = command
        self._session = session
        self._parent = given
        self._given = given is not None
        self._links: tuple[TraceContext, ...] = ()
        self._context: TraceContext | None = None
        self._start_ns = now_ns() if tracing.spans.enabled else 0

    def context(self, cause: TraceContext | None = None) -> TraceContext:
        """The span that the command's entries are written in; `cause` is that of the run which it is about."""
        if self._context is None:
            if self._parent is None:
                self._parent = cause
            elif cause is not None and cause.trace_id != self._parent.trace_id:
                self._links = (cause,)
            self._context = child_of(self._parent, self._spans)
        return self._context

    @property
    def stored(self) -> TraceContext | None:
        """The span that an entry of the command was written in, if there is one."""
        return self._context

    @contextmanager
    def append(self) -> Iterator[None]:
        """The write of the command's entry to the log."""
        context, start_ns = self.context(), now_ns()
        error: str | None = None
        try:
            yield
        except LogError as failed:
            error = type(failed).__name__
            raise
        finally:
            if self._wanted(context):
                child = child_of(context, self._spans)
                self._spans.ended(
                    Span("append", child, context, start_ns, now_ns(), "producer", self._ids(), error=error)
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._given:
            self.context()
        if self._context is None or not self._wanted(self._context):
            return
        self._spans.ended(
            Span(
                op_of(type(self._command).__name__),
                self._context,
                self._parent,
                self._start_ns,
                now_ns(),
                "server",
                self._ids(),
                self._links,
                _code_of(exc),
            )
        )

    def _ids(self) -> dict[str, Attribute]:
        named = {name: getattr(self._command, name, None) for name in _IDS}
        ids: dict[str, Attribute] = {f"antiphon.{_IDS[name]}": id_ for name, id_ in named.items() if id_ is not None}
        return ids | {"antiphon.session": self._session, "antiphon.gateway": self.gateway or ""}

    def _wanted(self, context: TraceContext) -> bool:
        return self._spans.enabled and context.sampled


def op_of(name: str) -> str:
    """`input.send` of `InputSend`."""
    return _CAPITAL.sub(".", name).lower()


def _code_of(exc: BaseException | None) -> str | None:
    match exc:
        case None:
            return None
        case Refused():
            return exc.code.value
        case LogError() | TimeoutError() | asyncio.CancelledError():
            return ErrorCode.UNAVAILABLE.value
        case _:
            return type(exc).__name__


@dataclass(slots=True)
class _Delivery:
    """What of a run the live readers have been given. `due`: something of it is in the write that comes next."""

    lane: str
    run_id: str
    attempts: list[TraceContext]
    """The span's parent, and those of later attempts, to which it is linked: as many as a run may lose workers."""
    first_ns: int = 0
    last_ns: int = 0
    deltas: int = 0
    readers: int = 0
    due: bool = False

    def written(self, readers: int) -> None:
        if self.due and readers:
            self.last_ns = now_ns()
            self.first_ns = self.first_ns or self.last_ns
            self.readers = max(self.readers, readers)
        self.due = False


@dataclass(slots=True)
class Deliveries:
    """One span for each run: from the first of its text that was written to live readers here to the last.

    One run of a lane is followed at a time; work is done for each entry, none for each reader.
    """

    tracing: GatewayTracing
    session: str
    _runs: dict[str, _Delivery] = field(default_factory=dict)
    _over: list[_Delivery] = field(default_factory=list)

    def loaded(self, state: SessionState) -> None:
        """The session is read afresh, as it is now."""
        self._runs.clear()
        self._over.clear()
        for lane in state.lanes:
            self.folded(lane, state)

    def folded(self, lane: str, state: SessionState) -> None:
        """A record of the lane has been folded."""
        known, run = self._runs.get(lane), state.lane_run(lane)
        if known is not None and (run is None or run.run_id != known.run_id):
            self._over.append(self._runs.pop(lane))
            known = None
        if run is None or run.trace is None or not run.trace.sampled:
            return
        if known is None:
            self._runs[lane] = _Delivery(lane, run.run_id, [run.trace])
        elif run.trace != known.attempts[-1]:
            known.attempts.append(run.trace)

    def delta(self, lane: str) -> None:
        """A piece of text of the lane is about to be written."""
        known = self._runs.get(lane)
        if known is not None:
            known.due = True
            known.deltas += 1

    def written(self, readers: int) -> None:
        """What was due has been written, to so many live readers."""
        for known in (*self._runs.values(), *self._over):
            known.written(readers)
        over, self._over = self._over, []
        for known in over:
            if known.first_ns:
                self._ended(known)

    def _ended(self, known: _Delivery) -> None:
        attributes: dict[str, Attribute] = {
            "antiphon.session": self.session,
            "antiphon.lane": known.lane,
            "antiphon.run": known.run_id,
            "antiphon.gateway": self.tracing.gateway or "",
            "antiphon.deltas": known.deltas,
            "antiphon.readers": known.readers,
        }
        spans, parent, *later = self.tracing.spans, *known.attempts
        context, links = child_of(parent, spans), tuple(later)
        spans.ended(Span("deliver", context, parent, known.first_ns, known.last_ns, "consumer", attributes, links))
