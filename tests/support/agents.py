"""Agents for tests, given to workers as `tests.support.agents:NAME`."""

from __future__ import annotations

from agent_worker.agents.echo import echo
from agent_worker.context import Agent

restarts = Agent("restarts", echo, on_takeover="restart")
fails = Agent("fails", echo, on_takeover="fail")
