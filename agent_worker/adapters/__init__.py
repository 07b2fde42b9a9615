"""Agents made of what is there already: models behind an API, agent frameworks, agent services, an async generator.

Each adapter is one module, which imports its framework only where it is used, so that all of them can be imported in any
environment. `agent(…)` of each makes an `Agent` for `antiphon dev --agent module:attr` and `antiphon worker`. What an
adapter can do is said by its `CAPABILITIES`, which its tests hold it to.
"""

from __future__ import annotations

from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import Limits
from agent_worker.adapters.declaring import ClientTool, Tool, client_tool, tool

__all__ = ["Capabilities", "ClientTool", "Limits", "Tool", "client_tool", "tool"]
