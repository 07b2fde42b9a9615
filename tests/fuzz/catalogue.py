"""All targets by name, and the trials that they share."""

from __future__ import annotations

import time
from random import Random

from tests.fuzz.mutation import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import INPUT_MAX, TARGETS, Target
from tests.fuzz.targets_http import accepts, bodies
from tests.fuzz.targets_log import checkpoints, logs, tails
from tests.fuzz.targets_tokens import tokens

ALL: dict[str, Target] = {
    **TARGETS,
    "logs": logs,
    "checkpoints": checkpoints,
    "tails": tails,
    "tokens": tokens,
    "bodies": bodies,
    "accepts": accepts,
}
CPU_S = 5.0
"""CPU time that one input may take on a slow machine; the slowest that is allowed takes a tenth of it."""


def tried(name: str, data: bytes) -> None:
    """Fails if something is wrong with what the target makes of the data, or if it takes too long."""
    if len(data) > INPUT_MAX:
        return
    begun = time.process_time()
    ALL[name](data)
    took_s = time.process_time() - begun
    assert took_s < CPU_S, f"{took_s:.1f} s of CPU time for {len(data)} bytes"


def drawn(name: str, chance: Random) -> bytes:
    """Hostile bytes for a target."""
    those = seeds()[name]
    return mutated(chance.choice(those), chance, those)
