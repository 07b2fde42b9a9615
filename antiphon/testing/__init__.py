"""Tests for agents, against the real thing: `agent_worker.testing` is where authors import it from."""
