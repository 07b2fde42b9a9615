"""Anthropic's Messages, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.anthropic import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted

ADAPTED = Adapted("anthropic", "tests.support.adapted.models:messages", CAPABILITIES)
