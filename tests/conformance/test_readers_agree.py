"""Gateways, the Python client and the TypeScript client fold any log to the same state and the same messages.

From the log's beginning or from a snapshot; entry by entry, or merged as a gateway sends them to who comes late.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_client import Entry as ClientEntry
from antiphon_client import Fold, State
from broker.codec import encode
from broker.state import SessionState
from broker.transcript import Transcript
from broker.view import public_view
from gateway.http.ui_messages.answer import Answer
from gateway.replay import ReplayEntry, frames
from tests.unit.strategies import Log, SessionModel, haunted_sessions, sessions, speeches

BUILT = Path(__file__).parents[2] / "clients" / "typescript" / "dist" / "index.js"

Reader = Callable[[dict[str, Any] | None, list[dict[str, Any]]], dict[str, Any]]


def python_client(state: dict[str, Any] | None, entries: list[dict[str, Any]]) -> dict[str, Any]:
    folded = Fold(None if state is None else State.from_dict(state))
    for frame in entries:
        entry = ClientEntry.parse(frame)
        assert entry is not None
        folded.apply(entry)
    view: dict[str, Any] = json.loads(json.dumps(folded.as_dict()))
    return view


@contextmanager
def folding(script: str) -> Iterator[Reader]:
    """A reader that is a script for node."""
    with asking(script) as ask:
        yield lambda state, entries: ask({"state": state, "entries": entries})


@contextmanager
def asking(script: str) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A script for node that takes and gives lines of JSON."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("folds in JavaScript need node to run")
    command = [node, str(Path(__file__).with_name(script))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(question: dict[str, Any]) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(question), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def typescript_client() -> Iterator[Reader]:
    if not BUILT.exists():
        pytest.skip("the TypeScript client is not built: `make typescript`, which runs this, too")
    with folding("fold_logs_typescript.mjs") as read:
        yield read


@pytest.fixture(scope="module")
def typescript_answers() -> Iterator[Callable[[dict[str, Any]], Any]]:
    if not BUILT.exists():
        pytest.skip("the TypeScript client is not built: `make typescript`, which runs this, too")
    with asking("tell_answers_typescript.mjs") as ask:
        yield ask


def gateway(log: Log) -> tuple[SessionState, list[dict[str, Any]]]:
    transcript = Transcript()
    for seq, entry in log:
        transcript.apply(seq, entry)
    return transcript.state, [message.as_dict() for message in transcript.messages]


def sent(log: Log, after: int, *, merge: bool) -> list[dict[str, Any]]:
    entries = [ReplayEntry(seq, 0, encode(entry), entry.off is not None) for seq, entry in log if seq > after]
    return [json.loads(frame) for frame in frames("s", entries, after, merge=merge)]


def agree(read: Reader, log: Log, *, merge: bool, places: list[int]) -> None:
    state, messages = gateway(log)
    for after in (0, *places):
        then, _ = gateway([(seq, entry) for seq, entry in log if seq <= after])
        snapshot = public_view(then) if after else None
        found = read(snapshot, sent(log, after, merge=merge))
        assert found == {"state": public_view(state), "messages": messages[then.messages :]}


def snapshots(model: SessionModel) -> list[int]:
    """Where a snapshot may stand: quiet places after which nothing old comes again, for it does not carry what was seen."""
    return [place for place in model.quiet if not _ids(model.log, 0, place) & _ids(model.log, place, model.log[-1][0])]


def _ids(log: Log, after: int, to: int) -> set[str]:
    return {entry.id for seq, entry in log if after < seq <= to}


logs = st.one_of(
    sessions().map(lambda model: (model.log, snapshots(model))),
    haunted_sessions().map(lambda haunted: (haunted[1], snapshots(haunted[0]))),
    speeches().map(lambda speech: (speech.entries, [])),
)


@given(logs, st.booleans())
def test_the_python_client_agrees(drawn: tuple[Log, list[int]], merge: bool) -> None:
    log, places = drawn
    agree(python_client, log, merge=merge, places=places)


@given(drawn=logs, merge=st.booleans())
def test_the_typescript_client_agrees(typescript_client: Reader, drawn: tuple[Log, list[int]], merge: bool) -> None:
    log, places = drawn
    agree(typescript_client, log, merge=merge, places=places)


def inputs_of(entries: list[dict[str, Any]]) -> list[str]:
    events = [event for entry in entries for event in entry["events"]]
    return list(dict.fromkeys(e["inputId"] for e in events if e["type"] == "input.applied"))


def assembled(chunks: list[dict[str, Any]]) -> list[Any]:
    """What a message comes to, however its texts were cut."""
    texts: dict[str, str] = {}
    rest = []
    for chunk in chunks:
        text = chunk.get("delta", chunk.get("inputTextDelta"))
        if text is None:
            rest.append(chunk)
        else:
            id_ = chunk.get("id") or chunk["toolCallId"]
            texts[id_] = texts.get(id_, "") + text
    return [rest, texts]


@given(drawn=logs, merge=st.booleans())
def test_the_typescript_client_tells_the_same_answers(
    typescript_answers: Callable[[dict[str, Any]], Any], drawn: tuple[Log, list[int]], merge: bool
) -> None:
    entries = sent(drawn[0], 0, merge=merge)
    for input_id in inputs_of(entries):
        answer = Answer(input_id, "user-1", "e")
        told = [answer.take(entry) for entry in entries]
        assert typescript_answers({"input": input_id, "viewer": "user-1", "entries": entries}) == told


@given(drawn=logs)
def test_an_answer_is_the_same_from_merged_entries(drawn: tuple[Log, list[int]]) -> None:
    every, merged = sent(drawn[0], 0, merge=False), sent(drawn[0], 0, merge=True)
    for input_id in inputs_of(every):
        one, other = Answer(input_id, "user-1", "e"), Answer(input_id, "user-1", "e")
        first = [chunk for entry in every for chunk in one.take(entry)]
        second = [chunk for entry in merged for chunk in other.take(entry)]
        assert assembled(first) == assembled(second)
        assert one.over == other.over
