"""The fold on logs that gateways and workers could have written, and on what zombies would have liked to add."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from broker import checkpoint
from broker.checkpoint import Checkpoint, advance, decode_checkpoint, encode_checkpoint, state_at
from broker.events import Entry
from broker.session import fold
from broker.state import SessionState
from broker.transcript import Transcript
from broker.view import public_view
from tests.unit.strategies import Log, SessionModel, haunted_sessions, sessions


def replay(log: Log, state: SessionState | None = None) -> Transcript:
    transcript = Transcript(state)
    for seq, entry in log:
        transcript.apply(seq, entry)
    return transcript


def messages_of(transcript: Transcript) -> list[dict[str, Any]]:
    return [message.as_dict() for message in transcript.messages]


def plain(state: SessionState) -> dict[str, Any]:
    """The state for comparison: how `Seen` is spread over its two sets says nothing."""
    fields = {name: getattr(state, name) for name in SessionState.__slots__}
    return fields | {"seen": state.seen.hashes()}


@given(sessions())
def test_the_fold_comes_to_what_was_done(model: SessionModel) -> None:
    transcript = replay(model.log)
    state = transcript.state
    assert [i.input_id for i in state.inputs] == model.queue
    assert list(state.runs) == ([] if model.run is None else [model.run])
    assert [run.attempt for run in state.runs.values()] == ([] if model.run is None else [model.attempt])
    assert all(run.lost == run.attempt - 1 for run in state.runs.values()), "no owner of the model lets go in a run"
    assert [m.id for m in transcript.messages] == [id_ for id_, _ in model.messages]
    assert state.messages == len(model.messages)
    unfinished = set(model.open)
    assert [(m.id, m.text) for m in transcript.messages if m.id not in unfinished] == [
        (id_, text) for id_, text in model.messages if id_ not in unfinished
    ]
    assert {m.id for m in transcript.messages if m.status == "streaming"} == unfinished


@given(sessions())
def test_every_input_comes_to_one_end(model: SessionModel) -> None:
    """Queued, applied, cancelled, failed or refused: one of them, once, however often it was sent."""
    state = replay(model.log).state
    ends = Counter(fate.input_id for fate in state.fates)
    ends.update(i.input_id for i in state.inputs)
    assert ends == Counter(model.fates.keys())
    for input_id, end in model.fates.items():
        fate = state.fate(input_id)
        assert (fate.status if fate is not None else "queued") == end
    assert len(state.seen) == len(model.fates)


@given(sessions())
def test_the_queue_is_served_in_the_order_of_the_log(model: SessionModel) -> None:
    """Nobody overtakes: inputs are applied in the order in which they were first sent, and so they wait."""
    first_sent: dict[str, int] = {}
    for seq, entry in model.log:
        if entry.lane is None:
            first_sent.setdefault(entry.id, seq)
    state = replay(model.log).state
    applied = [m.id.removeprefix("msg_") for m in replay(model.log).messages if m.role == "user"]
    order = [first_sent[input_id] for input_id in [*applied, *(i.input_id for i in state.inputs)]]
    assert order == sorted(order)


# --- stale fences --------------------------------------------------------------------------------------------------


@given(haunted_sessions())
def test_a_stale_fence_is_never_accepted(haunted: tuple[SessionModel, Log]) -> None:
    """Writes under fences that are no longer, or not yet, the lane's change neither state nor transcript."""
    model, log = haunted
    with_zombies, without = replay(log), replay(model.log)
    assert plain(replace(with_zombies.state, as_of=0)) == plain(replace(without.state, as_of=0))
    assert messages_of(with_zombies) == messages_of(without)


@given(sessions(), st.data())
def test_a_repeated_write_counts_once(model: SessionModel, data: st.DataObject) -> None:
    """A write that is in the log twice, the second time right after the first of its lane."""
    twice: Log = []
    for seq, entry in model.log:
        twice.append((seq, entry))
        if entry.lane is not None and not entry.id.startswith("own-") and data.draw(st.booleans()):
            twice.append((seq + 1, entry))
    again, once = replay(twice), replay(model.log)
    assert plain(replace(again.state, as_of=0)) == plain(replace(once.state, as_of=0))
    assert messages_of(again) == messages_of(once)


@given(sessions(), st.integers(0, 60))
def test_entries_that_were_folded_are_not_folded_again(model: SessionModel, count: int) -> None:
    once = replay(model.log)
    again = replay([*model.log, *model.log[-count:]])
    assert plain(again.state) == plain(once.state)
    assert messages_of(again) == messages_of(once)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def quiet_states(log: Log) -> list[SessionState]:
    """The states at quiet places, as a reader of the log comes upon them (`broker.loading`)."""
    found, state = [], SessionState()
    for seq, entry in log:
        before, state = state, fold(state, seq, entry)
        if state.idle and before.runs:
            found.append(state)
    return found


@given(sessions())
def test_quiet_places_are_quiet(model: SessionModel) -> None:
    assert {state.as_of for state in quiet_states(model.log)} <= set(model.quiet)


@given(sessions(), st.data())
def test_checkpoint_and_tail_give_the_state_of_a_replay(model: SessionModel, data: st.DataObject) -> None:
    whole = replay(model.log)
    places = quiet_states(model.log)
    start = data.draw(st.sampled_from(places)) if places else SessionState()
    read = decode_checkpoint(encode_checkpoint(Checkpoint(start))).state
    tail = replay([(seq, entry) for seq, entry in model.log if seq > start.as_of], read)
    assert plain(tail.state) == plain(whole.state)
    assert public_view(tail.state) == public_view(whole.state)
    assert messages_of(tail) == messages_of(whole)[start.messages :]


@given(sessions(max_size=120), st.integers(1, 6), st.integers(1, 4))
def test_checkpoints_that_follow_each_other_lose_nothing(model: SessionModel, pages: int, keep: int) -> None:
    """As the owner writes them: one after another, each from the last. Pages lead to the same messages."""
    log, last = model.log, checkpoint.START
    with mock.patch.multiple(checkpoint, PAGE_MESSAGES=pages, KEEP_MESSAGES=keep):
        for end in range(0, len(log) + 1, 20):
            states = [s for s in quiet_states(log[:end]) if s.as_of > last.state.as_of]
            step = advance(last, states, replay(log[:end]).state)
            last = last if step is None else decode_checkpoint(encode_checkpoint(step))
    whole = replay(log)
    tail = replay([(seq, entry) for seq, entry in log if seq > last.state.as_of], last.state)
    assert plain(tail.state) == plain(whole.state)
    assert [page.messages for page in last.pages] == sorted({page.messages for page in last.pages})
    for page in last.pages:
        after = [(seq, entry) for seq, entry in log if seq > page.seq and not _was_sent_before(model, page.seq, entry)]
        assert messages_of(replay(after, state_at(page))) == messages_of(whole)[page.messages :]


def _was_sent_before(model: SessionModel, seq: int, entry: Entry) -> bool:
    """A page does not know which inputs were sent before it, nor which write was the last: see `state_at`."""
    return any(earlier.id == entry.id for at, earlier in model.log if at <= seq)
