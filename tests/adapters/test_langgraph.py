"""LangGraph, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.langgraph import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted

ADAPTED = Adapted("langgraph", "tests.support.adapted.graph_agent:adapted", CAPABILITIES)
