"""An AG-UI server, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.ag_ui import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted

ADAPTED = Adapted("ag_ui", "tests.support.adapted.models:service", CAPABILITIES)
