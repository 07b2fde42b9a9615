"""The log against what was acknowledged, and against its own rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from broker.lease import parse_write_id
from broker.transcript import message_id_of
from tests.chaos.findings import Indexed, Kind, Violation

_ENDS = ("RUN_FINISHED", "RUN_ERROR")


def check_log(indexed: Indexed) -> Iterator[Violation]:
    """Inputs, fences, runs, what is left at the end, and the copies of it."""
    yield from _inputs(indexed)
    yield from _cancels(indexed)
    yield from _fences(indexed)
    yield from _runs(indexed)
    yield from _the_end(indexed)
    yield from _copies(indexed)


def _inputs(indexed: Indexed) -> Iterator[Violation]:
    stored: dict[str, list[int]] = {}
    for logged, event in indexed.events("input.sent"):
        stored.setdefault(event["inputId"], []).append(logged.seq)
    for input_id, places in stored.items():
        if len(places) > 1:
            yield Violation(Kind.DOUBLED_INPUT, input_id, f"at {places}")
    for answer, fields in indexed.acknowledged("input.send"):
        places = stored.get(fields["inputId"], [])
        if not places:
            yield Violation(Kind.LOST_INPUT, fields["inputId"], f"acknowledged to {answer.who}")
        elif answer.reply.get("seq") not in (None, *places):
            yield Violation(Kind.WRONG_RECEIPT, fields["inputId"], f"{answer.reply['seq']}, not {places}")
    applied = Counter(event["inputId"] for _, event in indexed.events("input.applied"))
    for input_id, times in applied.items():
        if times > 1:
            yield Violation(Kind.APPLIED_TWICE, input_id)


def _cancels(indexed: Indexed) -> Iterator[Violation]:
    """Who was told `cancelled` finds no message of it, and no run that went on to another end.

    Its run may have begun a moment later, as one that is stopped at once (PROTOCOL, rule 9).
    """
    spoken = {message.id for message in indexed.transcript.messages}
    for _, fields in indexed.acknowledged("input.cancel"):
        if message_id_of(fields["inputId"]) in spoken:
            yield Violation(Kind.CANCEL_UNDONE, fields["inputId"])
    ends = {_run_of(logged.entry, event): _how(event) for logged, event in indexed.events(*_ENDS)}
    for answer, fields in indexed.acknowledged("run.cancel"):
        if answer.reply["status"] == "cancelled" and ends.get(fields["runId"], "cancelled") != "cancelled":
            yield Violation(Kind.CANCEL_UNDONE, fields["runId"], ends[fields["runId"]])


def _how(event: Mapping[str, Any]) -> str:
    return "error" if event["type"] == "RUN_ERROR" else str(event["outcome"]["type"])


def _fences(indexed: Indexed) -> Iterator[Violation]:
    fences: dict[str, int] = {}
    writes: dict[tuple[str, str], object] = {}
    for logged in indexed.log:
        entry, lane = logged.entry, logged.entry.get("lane")
        if lane is None:
            continue
        if entry["events"] and entry["events"][0]["type"] == "session.owner":
            fences[lane] = logged.seq
            continue
        write = parse_write_id(entry["id"])
        fence = None if write is None else write.fence
        if fence != fences.get(lane):
            yield Violation(Kind.STALE_FENCE, f"{lane} {entry['id']}", f"at {logged.seq}, fence {fences.get(lane)}")
        if writes.setdefault((lane, entry["id"]), entry["events"]) != entry["events"]:
            yield Violation(Kind.REWRITTEN, f"{lane} {entry['id']}", f"at {logged.seq}")


def _runs(indexed: Indexed) -> Iterator[Violation]:
    started = Counter(event["runId"] for _, event in indexed.events("RUN_STARTED"))
    ended = Counter(_run_of(logged.entry, event) for logged, event in indexed.events(*_ENDS))
    for run_id, times in started.items():
        if times > 1:
            yield Violation(Kind.STARTED_TWICE, run_id)
        if not ended[run_id]:
            yield Violation(Kind.OPEN_RUN, run_id)
    for run_id, times in ended.items():
        if times > 1:
            yield Violation(Kind.ENDED_TWICE, run_id)


def _run_of(entry: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """`RUN_ERROR` names no run: it is that of its entry."""
    return str(event.get("runId") or entry.get("run"))


def _the_end(indexed: Indexed) -> Iterator[Violation]:
    """Folded to its end, the session is at rest."""
    for queued in indexed.transcript.state.inputs:
        yield Violation(Kind.WAITING, queued.input_id)


def _copies(indexed: Indexed) -> Iterator[Violation]:
    """Counted, not compared message by message: what is in a copy is up to NATS, that it is there is what we rely on."""
    for stream in {copy.stream for copy in indexed.copies}:
        counts = {copy.server: (copy.messages, copy.last) for copy in indexed.copies if copy.stream == stream}
        if len(set(counts.values())) > 1:
            yield Violation(Kind.LOST_BY_A_COPY, stream, f"messages and last sequence: {counts}")
