"""Agents that come with Antiphon: `echo` (deterministic, for tests and benchmarks) and `local` (a real model)."""
