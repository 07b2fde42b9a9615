"""Logs of a process: structlog, JSON lines by default, never payloads or prompts (ids and sizes only).

A line tells of an exception its type and where it was raised. Its text may hold what people said, so that is left out
unless the level is `debug`.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import orjson
import structlog

_PLACES_MAX, _ERRORS_MAX = 16, 8
"""How much of an exception is told: the innermost places in the code, and exceptions in one another."""
_OF_PROCESS = ("process", "version")
"""What all lines of a process carry; `version` is that of a worker's agents."""


def configure(*, level: str = "info", pretty: bool = False) -> None:
    """Sets up logging to standard error, once, at the top of a process. `level`: debug, info, warning or error."""
    number = getattr(logging, level.upper(), logging.INFO)
    with_text = number <= logging.DEBUG
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if pretty
        else structlog.processors.JSONRenderer(_json)
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Exceptions(with_text=with_text),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # A line in one write: several processes may share the file.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries that use the standard library's logging say only what matters, in the same place and shape.
    handler = logging.StreamHandler(sys.stderr)
    foreign: list[structlog.typing.Processor] = [
        _ForeignText(with_text=with_text),
        structlog.stdlib.add_logger_name,
        *shared,
    ]
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, renderer], foreign_pre_chain=foreign))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])


def bind_only(**ids: str) -> None:
    """What a task logs carries these ids, and not those of the task that happened to start it."""
    bound = structlog.contextvars.get_contextvars()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**{key: bound[key] for key in _OF_PROCESS if key in bound}, **ids)


def _json(event: Any, **options: Any) -> str:
    return orjson.dumps(event, options.get("default")).decode()


class _Exceptions:
    """Puts an exception's type (`error`) and places (`at`) where structlog would put its whole text."""

    def __init__(self, *, with_text: bool) -> None:
        self._with_text = with_text

    def __call__(self, _logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        exc_info = event.pop("exc_info", None)
        if exc_info is True:
            exc_info = sys.exc_info()
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        if isinstance(exc_info, tuple) and exc_info[1] is not None:
            chain = list(_chain(exc_info[1]))
            event["error"] = " < ".join(type(error).__name__ for error in chain)
            event["at"] = _places(chain[0].__traceback__)
            if self._with_text:
                event["text"] = [str(error) for error in chain]
        return event


class _ForeignText:
    """The text of another library's log line. The event loop's goes on for lines with what tasks and exceptions hold."""

    def __init__(self, *, with_text: bool) -> None:
        self._with_text = with_text

    def __call__(self, _logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if not self._with_text and event["_record"].name == "asyncio":
            event["event"] = str(event["event"]).partition("\n")[0]
        return event


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What was raised first, then what was raised because of it, or wraps it."""
    found: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and len(found) < _ERRORS_MAX:
        found.append(seen)
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        else:
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return reversed(found)


def _places(tb: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(tb)[-_PLACES_MAX:]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
