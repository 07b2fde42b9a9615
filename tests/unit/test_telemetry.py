"""Log lines: one JSON object each, with the ids of the task they come from, and nothing of what people said."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SECRET = "marker-7f31"

_SCRIPT = """
import asyncio, gc, logging, structlog
from broker.telemetry import bind_only, configure

configure(level="{level}")
log = structlog.get_logger("antiphon.test")
SECRET = "marker-" + "7f31"

def fails():
    raise ValueError(SECRET)

async def main():
    structlog.contextvars.bind_contextvars(process="w-1", connection="c-1")
    {body}

asyncio.run(main())
"""


def lines(body: str, level: str = "info") -> list[dict[str, Any]]:
    """What a process logs that does this."""
    script = _SCRIPT.replace("{level}", level).replace("{body}", body.replace("\n", "\n    "))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


RAISES = "try:\n    fails()\nexcept ValueError as error:\n    {caught}"
IN_A_GROUP = (
    "async def one():\n    fails()\n"
    "try:\n    async with asyncio.TaskGroup() as group:\n        group.create_task(one())\n"
    "except* ValueError:\n    log.exception('it failed')"
)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (RAISES.format(caught="log.exception('it failed')"), "ValueError"),
        (RAISES.format(caught="log.error('it failed', exc_info=error)"), "ValueError"),
        (RAISES.format(caught="logging.getLogger('lib').exception('it failed')"), "ValueError"),
        (
            RAISES.format(
                caught="try:\n        raise KeyError(SECRET) from error\n    except KeyError:\n        log.exception('it failed')"
            ),
            "ValueError < KeyError",
        ),
        (IN_A_GROUP, "ValueError < ExceptionGroup"),
    ],
)
def test_of_an_exception_its_type_and_place_are_told_and_not_its_text(body: str, error: str) -> None:
    (line,) = lines(body)
    assert line["event"] == "it failed"
    assert line["error"] == error
    assert line["level"] == "error"
    assert line["at"][-1].endswith("in fails")
    assert line["process"] == "w-1"
    assert SECRET not in json.dumps(line)


def test_at_debug_its_text_is_told_as_well() -> None:
    (line,) = lines(RAISES.format(caught="log.exception('it failed')"), "debug")
    assert line["text"] == [SECRET]


def test_what_the_event_loop_says_of_a_lost_exception() -> None:
    body = "async def one():\n    fails()\ntask = asyncio.create_task(one())\nawait asyncio.sleep(0)\ndel task\ngc.collect()"
    (line,) = lines(body)
    assert line["event"] == "Task exception was never retrieved"
    assert (line["logger"], line["error"]) == ("asyncio", "ValueError")
    assert SECRET not in json.dumps(line)


def test_a_task_carries_its_own_ids() -> None:
    body = (
        "async def feed():\n    bind_only(session='s-1')\n    log.info('inside')\n"
        "await asyncio.create_task(feed())\nlog.info('outside')"
    )
    inside, outside = lines(body)
    assert {name: inside.get(name) for name in ("process", "session", "connection")} == {
        "process": "w-1",
        "session": "s-1",
        "connection": None,
    }
    assert outside["connection"] == "c-1"
    assert "session" not in outside
