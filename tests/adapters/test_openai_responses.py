"""An OpenAI-compatible endpoint, by Responses, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.openai_compatible import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted

ADAPTED = Adapted("openai_responses", "tests.support.adapted.models:responses", CAPABILITIES)
