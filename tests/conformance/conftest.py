"""Loads the profiles of Hypothesis."""

from __future__ import annotations

import tests.unit.profiles  # noqa: F401
