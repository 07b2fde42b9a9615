"""`antiphon replay`: a recorded session, played to another version of its agent, and what is different then."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent_worker.context import Agent
from antiphon.processes import BrokerSettings
from antiphon.testing.recording import Recording, lines_of, recorded
from antiphon.testing.replay import replay
from antiphon.testing.turns import Turn
from antiphon.transfer import Site
from broker.errors import ConfigError
from broker.events import Entry
from broker.transfer import entries_of, exported

COMPARED = ("text", "calls", "steps", "end")
"""What of turns can be compared."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What `antiphon replay` was asked for."""

    agent: Agent
    compared: Sequence[str] = COMPARED
    timeout_s: float = 120.0
    as_json: bool = False


async def replay_file(path: str, asked: Asked) -> int:
    """Returns the exit code: 1 if something is different. Raises ConfigError, TransferError, NothingCame, ServerError."""
    return await _replay(_read(path), asked)


def _read(path: str) -> list[tuple[int, Entry]]:
    try:
        with Path(path).open("rb") as lines:
            return entries_of(lines)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from None


async def replay_session(broker: BrokerSettings, session: str, asked: Asked) -> int:
    """The same, of a session in a log as it stands now."""
    async with Site.of(broker) as site:
        subjects = site.log.subjects(session)
        if await site.log.head(subjects) is None:
            raise ConfigError(f"the session {session!r} is empty")
        entries = entries_of([line async for line in exported(site.log, subjects)])
    return await _replay(entries, asked)


async def _replay(entries: list[tuple[int, Entry]], asked: Asked) -> int:
    recording = recorded(entries)
    turns = await replay(recording, asked.agent, timeout_s=asked.timeout_s)
    different = 0
    for number, (scene, turn) in enumerate(zip(recording.scenes, turns, strict=True), 1):
        stopped = scene.turn.kind == "cancelled"
        diff = [] if stopped else compared(scene.turn, turn, asked.compared)
        different += bool(diff)
        _print(number, scene.turn, turn, diff, as_json=asked.as_json, stopped=stopped)
    if not asked.as_json:
        print(_summary(recording, different))
    return 1 if different else 0


def compared(was: Turn, now: Turn, what: Sequence[str]) -> list[str]:
    """How two turns differ, as lines of a unified diff; none if they do not."""
    wanted = {name: name in what for name in COMPARED}
    return list(difflib.unified_diff(lines_of(was, wanted), lines_of(now, wanted), "recorded", "now", lineterm="", n=1))


def _print(number: int, was: Turn, now: Turn, diff: list[str], *, as_json: bool, stopped: bool) -> None:
    if as_json:
        said = {"turn": number, "different": bool(diff), "recorded": asdict(was), "now": asdict(now)}
        print(json.dumps(said, ensure_ascii=False))
        return
    how = "was stopped by people, and is not compared" if stopped else ("different" if diff else "the same")
    first = was.inputs[0] if was.inputs else ""
    print(f"turn {number}: {how}: {first[:60]!r}")
    for line in diff[2:]:
        print(f"    {line}")


def _summary(recording: Recording, different: int) -> str:
    count = len(recording.scenes)
    return f"{count} turns: {different} different" if different else f"{count} turns: no difference"
