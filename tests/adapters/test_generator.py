"""A plain async generator, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.generator import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted

ADAPTED = Adapted("generator", "tests.support.adapted.models:generated", CAPABILITIES)
