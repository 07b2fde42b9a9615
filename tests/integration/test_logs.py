"""What real processes log: JSON, with the ids that belong there, and never a word of what somebody said."""

from __future__ import annotations

import json
from typing import Any

from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.plane import refused
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack

MARKER = "marker-5ad1"
"""In everything that a person or an agent says here, and nowhere else."""


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.output().splitlines() if not line.startswith("ready ")]


async def test_exceptions_of_agents_and_what_clients_send_are_not_logged(tmp_path: Any, nats_server: NatsNode) -> None:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        gateway = await stack.gateway()
        worker = await stack.worker("tests.support.agents_tracing:leaky")
        async with await Wire.open(gateway.url, stack.token()) as wire:
            await refused(wire, "bad_command", MARKER)
            await refused(wire, "bad_name", "subscribe", session=f"{MARKER} !")
            await refused(wire, "bad_command", "input.send", session="s", inputId="i", content="x", mode=MARKER)
            await refused(wire, "content_too_large", "input.send", session="s", inputId="i", content=MARKER * 10_000)
            await refused(wire, "cursor_bad", "subscribe", session="s", after=MARKER)
            place = Place("s")
            await wire.subscribe(place)
            await wire.input("s", "a", MARKER)
            await wire.follow(place, lambda p: "run_a" in p.ended)
            assert place.ended == {"run_a": "error"}
        for process in (gateway, worker):
            await process.terminate()
            assert MARKER not in process.output()
    told = {line["event"]: line for line in lines(worker)}
    run = {"session": "s", "lane": "main", "run": "run_a", "attempt": 1}
    for event, error in (
        ("it went wrong", "RuntimeError"),
        ("it went wrong here", "RuntimeError"),
        ("Task exception was never retrieved", "LookupError"),
        ("the agent raised", "KeyError"),
    ):
        assert told[event]["error"] == error
        assert run.items() <= told[event].items(), event
        assert len(told[event]["trace"]) == 32
    assert told["it went wrong"]["logger"] == "a.library"
    assert told["it went wrong here"]["at"][-1].endswith("in _leaky")
    (stored,) = (line for line in lines(gateway) if line["event"] == "input stored")
    assert {"session": "s", "input": "a"}.items() <= stored.items()
    assert stored["trace"] == told["run started"]["trace"]
    assert {"connection", "process", "seq"} <= stored.keys()
