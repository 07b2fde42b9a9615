"""Lanes: who owns them, and the texts that are being streamed in them."""

from __future__ import annotations

from dataclasses import replace

from broker.events import MessageSegment, Participant, SessionOwner
from broker.fold import handoffs
from broker.fold.change import with_lane, with_run
from broker.fold.inputs import spoken
from broker.state import OpenStream, SessionState


def claimed(state: SessionState, seq: int, event: SessionOwner, by: Participant | None) -> SessionState:
    """A new owner, or none. What waits for a lane that a human takes is a message at once."""
    owner = None if event.kind == "none" else Participant(event.kind, event.id, by.name if by else None)
    lane = state.lane(event.lane)
    run = state.lane_run(event.lane)
    if event.kind == "agent" and lane.owner is not None and lane.human is None and run is not None:
        state = with_run(state, replace(run, lost=run.lost + 1, lost_fence=seq))
    can = tuple(event.can or ())
    state = with_lane(state, event.lane, replace(lane, fence=seq, owner=owner, last_n=0, can=can))
    if owner is None or owner.kind != "user":
        return state
    state = handoffs.accepted(state, event.lane, owner)
    waiting = state.queue(event.lane)
    state = replace(state, inputs=tuple(i for i in state.inputs if i.lane != event.lane))
    for queued in waiting:
        state = spoken(state, queued)
    return state


def stream_opened(state: SessionState, seq: int, lane_name: str, id_: str, kind: str) -> SessionState:
    lane = state.lane(lane_name)
    streams = {**lane.streams, id_: OpenStream(id_, kind, seq)}
    return with_lane(replace(state, messages=state.messages + 1), lane_name, replace(lane, streams=streams))


def stream_settled(state: SessionState, seq: int, lane_name: str, event: MessageSegment) -> SessionState:
    lane = state.lane(lane_name)
    stream = lane.streams.get(event.message_id)
    if stream is None:
        return state
    settled = max(stream.settled, event.offset + event.length)
    streams = {**lane.streams, stream.id: replace(stream, settled_seq=seq, settled=settled)}
    return with_lane(state, lane_name, replace(lane, streams=streams))


def stream_closed(state: SessionState, lane_name: str, id_: str) -> SessionState:
    lane = state.lane(lane_name)
    if id_ not in lane.streams:
        return state
    streams = {key: stream for key, stream in lane.streams.items() if key != id_}
    return with_lane(state, lane_name, replace(lane, streams=streams))
