"""Finding an agent: a built-in name, or `module:object` of the author's."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from agent_worker.agents import echo, local
from agent_worker.config import BUILT_IN
from agent_worker.context import Agent
from broker.errors import ConfigError


def load_agent(name: str) -> Agent:
    """The agent that `name` stands for. Raises ConfigError in one line that says what is wrong and where.

    The object may be an `Agent`, a coroutine function taking a `SessionContext`, or a function that makes either.
    """
    match name:
        case "echo":
            return echo.agent
        case "local":
            return local.make()
    module_name, colon, object_name = name.partition(":")
    if not colon or not module_name or not object_name:
        raise ConfigError(f"agent {name!r} is neither built in ({', '.join(BUILT_IN)}) nor of the form module:object")
    return _as_agent(name, _find(name, module_name, object_name))


def check_agent(name: str) -> str:
    """The agent's own name. Raises ConfigError for one that could not be run here.

    A worker is told the same; this is to tell it early.
    """
    if name == "local":
        local.weights()
        local.llama()
        return name
    return load_agent(name).name


def _find(name: str, module_name: str, object_name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # An author's module may fail in any way while it is imported; say where, and leave the rest to them.
        raise ConfigError(f"agent {name!r}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, object_name)
    except AttributeError:
        raise ConfigError(f"agent {name!r}: the module {module_name} has no {object_name!r}") from None


def _as_agent(name: str, found: Any) -> Agent:
    if isinstance(found, Agent):
        return found
    if inspect.iscoroutinefunction(found):
        return Agent(found.__name__, found)
    if callable(found):
        made = found()
        if isinstance(made, Agent):
            return made
    raise ConfigError(f"agent {name!r} is neither an Agent nor an async function of a SessionContext")
