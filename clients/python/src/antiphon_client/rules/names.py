"""Ids that are made of others (PROTOCOL, section 2, names), and who is the same."""

from __future__ import annotations

from typing import Final

from antiphon_client._json import JsonObject

RUN_PREFIX: Final = "run_"
MAX_INPUTS: Final = 50_000
"""Inputs that a session may have in its life. It bounds the ids kept here, too."""


def input_of(run_id: str) -> str | None:
    """The input that starts a run."""
    return run_id.removeprefix(RUN_PREFIX) if run_id.startswith(RUN_PREFIX) else None


def same_id(one: JsonObject | None, other: JsonObject | None) -> bool:
    """Whether two `by` have the same id."""
    return one is not None and other is not None and one.get("id") == other.get("id")


def same_sender(one: JsonObject | None, other: JsonObject | None) -> bool:
    """Whether two `by` are the same: kind and id."""
    return same_id(one, other) and one is not None and other is not None and one.get("kind") == other.get("kind")
