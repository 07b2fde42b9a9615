"""What the tests of behaviours share."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.behaviours.report import FIGURE
from tests.support.nats import NatsNode
from tests.support.plane import PlaneWorld, plane_world
from tests.support.stack import Stack

Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Takes what the test has seen, for the line that `make behaviours` prints: `figure("1000 cuts, 0 lost")`."""

    def take(text: str) -> None:
        record_property(FIGURE, text)
        print(text)

    return take


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    """A stack on one NATS server, with its topology and no process yet."""
    async with Stack(tmp_path / "stack", nats_server.url) as running:
        yield running


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PlaneWorld]:
    """Two gateways on one log, and no worker yet."""
    async with plane_world(tmp_path) as world:
        yield world


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """What chance in a test comes from; `ANTIPHON_TEST_SEED` gives the one of an earlier run."""
    value = int(os.environ.get("ANTIPHON_TEST_SEED") or random.randrange(2**32))
    record_property("seed", value)
    print(f"seed {value}")
    return value
