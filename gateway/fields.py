"""Reading the fields of a client's command: each is taken as what it must be, or the refusal names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broker.errors import ErrorCode, Refused
from broker.subjects import check_session
from broker.tracing import TraceContext, parse_context


class BadFrame(Refused):
    """A frame that is no command. `id` is the command's, if it had one."""

    def __init__(self, id_: int | None, code: ErrorCode, message: str, **data: Any) -> None:
        super().__init__(code, message, **data)
        self.id = id_


@dataclass(frozen=True, slots=True)
class Writing:
    """A command that may write to the log. `trace` is the client's span, of which it is a part."""

    trace: TraceContext | None = field(default=None, kw_only=True)


class Fields:
    """Reads a command's fields, and says which one is wrong."""

    def __init__(self, wire: dict[str, Any], id_: int) -> None:
        self._wire = wire
        self._id = id_

    def has(self, name: str) -> bool:
        """Whether the field is there, be it null."""
        return name in self._wire

    def any(self, name: str) -> Any:
        """A field's value, whatever it is; None if the field is absent."""
        return self._wire.get(name)

    def text(self, name: str) -> str:
        value = self._wire.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "must be text")
        return value

    def maybe_text(self, name: str) -> str | None:
        return None if self._wire.get(name) is None else self.text(name)

    def maybe_object(self, name: str) -> dict[str, Any] | None:
        value = self._wire.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return value

    def maybe_int(self, name: str, low: int, high: int) -> int | None:
        value = self._wire.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of `choices`; the first of them if the field is absent."""
        value = self._wire.get(name, choices[0])
        if value not in choices:
            raise self.wrong(name, f"must be one of {', '.join(choices)}")
        return str(value)

    def maybe_choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        return None if self._wire.get(name) is None else self.choice(name, choices)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._wire.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def trace(self) -> TraceContext | None:
        """The client's span. One that is malformed counts as none."""
        return parse_context(self._wire.get("traceparent"), self._wire.get("tracestate"))

    def session(self) -> str:
        """Raises BadFrame, InvalidName."""
        return check_session(self.text("session"))

    def wrong(self, name: str, what: str) -> BadFrame:
        return BadFrame(self._id, ErrorCode.BAD_COMMAND, f"`{name}` {what}", field=name)
