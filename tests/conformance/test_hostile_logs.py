"""Whatever is in a log, gateways, the Python client and the TypeScript client fold it to the same state and messages.

What clients get of it comes by way of a gateway, which leaves out what its writer had no right to say, and what is
malformed: not all readers would find the same in that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from broker.transcript import Transcript
from broker.view import public_view
from tests.conformance.test_readers_agree import BUILT, Reader, folding, python_client
from tests.fuzz.catalogue import drawn
from tests.fuzz.targets_log import decoded, sent, stored

TRIALS = int(os.environ.get("FUZZ_TRIALS", "300"))
"""Logs for each reader."""


def gateway(data: bytes) -> dict[str, Any]:
    transcript = Transcript()
    for seq, entry in decoded(stored(data)):
        transcript.apply(seq, entry)
    return {
        "state": public_view(transcript.state),
        "messages": [message.as_dict() for message in transcript.messages],
    }


def alike(value: Any) -> Any:
    """JSON with its numbers as JavaScript has them."""
    if isinstance(value, dict):
        return {key: alike(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [alike(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def agree(read: Reader, data: bytes) -> None:
    log = stored(data)
    expected = alike(gateway(data))
    for merge in (False, True):
        assert alike(read(None, sent(log, merge=merge))) == expected, data


@pytest.fixture(scope="module")
def typescript_client() -> Iterator[Reader]:
    if not BUILT.exists():
        pytest.skip("the TypeScript client is not built: `make typescript`, which runs this, too")
    with folding("fold_logs_typescript.mjs") as read:
        yield read


@pytest.mark.parametrize("number", range(10))
def test_the_python_client_agrees(number: int) -> None:
    for trial in range(TRIALS // 10):
        agree(python_client, drawn("logs", Random(f"{number}-{trial}")))


@pytest.mark.parametrize("number", range(10))
def test_the_typescript_client_agrees(typescript_client: Reader, number: int) -> None:
    for trial in range(TRIALS // 10):
        agree(typescript_client, drawn("logs", Random(f"{number}-{trial}")))


def test_a_reader_that_differs_is_found() -> None:
    """The check can fail: a reader that takes no input back is told apart."""

    def careless(state: dict[str, Any] | None, entries: list[dict[str, Any]]) -> dict[str, Any]:
        kept = [e for e in entries if not any(event["type"] == "input.cancel.requested" for event in e["events"])]
        return python_client(state, kept)

    lines = (
        b'r.in {"id":"i1","ts":1,"events":[{"type":"input.sent","inputId":"i1","content":"x"}]}',
        b'r.in {"id":"c1","ts":2,"events":[{"type":"input.cancel.requested","inputId":"i1"}]}',
    )
    agree(python_client, b"\n".join(lines))
    with pytest.raises(AssertionError):
        agree(careless, b"\n".join(lines))
