"""Frames, cursors, the chain, close codes, back-off and pacing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_client import (
    CursorInvalid,
    ModeRefused,
    NotFirst,
    NotYours,
    RoleRequired,
    SessionClosed,
    SessionFull,
    ValueRefused,
)
from antiphon_client import frames as frames_of
from antiphon_client._json import RETRY_AFTER_CAP_S, parse_object
from antiphon_client.errors import CommandRefused, NotAllowed, NotFound, QueueFull, TooLate, refusal
from antiphon_client.protocol import (
    CaughtUp,
    Cursor,
    Entry,
    Gap,
    Limits,
    Snapshot,
    Verdict,
    Welcome,
    chain_verdict,
    encode,
)
from antiphon_client.reconnect import Action, Backoff, CloseAdvice, Pacer, classify_close, full_jitter_s

texts = st.text(alphabet='ab1:-{}"é😀', max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
WIRE_NAMES = ("session", "seq", "prev", "id", "lane", "run", "ts", "by", "off", "merged", "events", "asOf", "state")
OTHER_NAMES = ("messagesBefore", "cursor", "from", "to", "user", "limits", "heartbeat_ms", "token_expires_at")
frames = st.dictionaries(st.sampled_from(WIRE_NAMES + OTHER_NAMES), json_values)


class TestCursor:
    def test_reads_and_writes(self) -> None:
        cursor = Cursor.parse("mb1x9k:1842")
        assert cursor == Cursor("mb1x9k", 1842)
        assert str(cursor) == "mb1x9k:1842"

    @pytest.mark.parametrize(
        "text", ["", "x", ":1", "x:", "x:-1", "x:1.5", "x:1 ", "a:b:1", "x:\u0663", "x:" + "9" * 40]
    )
    def test_refuses_what_is_none(self, text: str) -> None:
        with pytest.raises(CursorInvalid) as caught:
            Cursor.parse(text)
        assert caught.value.code == "cursor_bad"
        assert isinstance(caught.value, ValueError)


class TestChain:
    @pytest.mark.parametrize(
        ("last", "seq", "prev", "verdict"),
        [
            (5, 9, 5, Verdict.NEXT),
            (5, 5, 4, Verdict.DUPLICATE),
            (5, 3, 2, Verdict.DUPLICATE),
            (5, 9, 7, Verdict.BROKEN),
            (5, 9, 3, Verdict.BROKEN),
            (0, 1, 0, Verdict.NEXT),
        ],
    )
    def test_verdicts(self, last: int, seq: int, prev: int, verdict: Verdict) -> None:
        assert chain_verdict(last, seq, prev) is verdict


class TestFrames:
    def test_an_entry(self) -> None:
        frame: dict[str, Any] = {
            "op": "entry", "session": "demo", "seq": 1842, "prev": 1840, "id": "1800-42", "lane": "main",
            "run": "run_1", "ts": 17, "by": {"kind": "agent", "id": "w"}, "off": 7, "merged": 2,
            "events": [{"type": "X"}, "no object"], "unknown": 1,
        }  # fmt: skip
        entry = Entry.parse(frame, "ep")
        assert entry == Entry(
            session="demo", seq=1842, prev=1840, id="1800-42", lane="main", run="run_1", ts=17,
            by={"kind": "agent", "id": "w"}, off=7, merged=2, events=({"type": "X"},), epoch="ep",
        )  # fmt: skip
        assert entry.cursor == "ep:1842"
        assert (entry.fence, entry.number) == (1800, 42)

    @pytest.mark.parametrize("identity", ["", "x-1", "1800", "1800-", "-42", "1800-42-1", "\uff11-1", "01J8Z"])
    def test_an_entry_without_a_fence(self, identity: str) -> None:
        assert (Entry("demo", 1, 0, id=identity).fence, Entry("demo", 1, 0, id=identity).number) == (None, None)

    @pytest.mark.parametrize("missing", ["session", "seq", "prev"])
    def test_an_entry_without_its_place(self, missing: str) -> None:
        frame: dict[str, Any] = {"session": "demo", "seq": 2, "prev": 1}
        assert Entry.parse(frame) is not None
        assert Entry.parse({**frame, missing: None}) is None
        assert Entry.parse({**frame, missing: True}) is None

    def test_control_frames(self) -> None:
        assert Snapshot.parse({"session": "s", "asOf": 3}, "e") == Snapshot("s", 3, 0, {}, "e")
        assert Snapshot("s", 3, 0, {}, "e").cursor == "e:3"
        assert CaughtUp.parse({"session": "s", "seq": 3, "cursor": "e:3"}) == CaughtUp("s", 3, "e:3")
        assert CaughtUp.parse({"session": "s", "seq": 3}, "e") == CaughtUp("s", 3, "e:3")
        assert Gap.parse({"session": "s", "from": 1, "to": 2}) == Gap("s", 1, 2)
        assert (Snapshot.parse({}), CaughtUp.parse({}), Gap.parse({})) == (None, None, None)

    def test_a_welcome(self) -> None:
        frame = {"user": {"id": "user-1", "name": "A user"}, "token_expires_at": 5, "heartbeat_ms": 500}
        welcome = Welcome.parse({**frame, "limits": {"frame_bytes": 9, "input_bytes": "x", "new": 1}})
        assert (welcome.user_id, welcome.user_name, welcome.token_expires_at) == ("user-1", "A user", 5.0)
        assert welcome.heartbeat_s == 0.5
        assert welcome.limits == Limits(frame_bytes=9)
        assert Welcome.parse({}).heartbeat_s == 25.0

    @given(frames)
    def test_no_frame_is_too_strange(self, frame: dict[str, Any]) -> None:
        for parse in (Entry.parse, Snapshot.parse, CaughtUp.parse, Gap.parse, Welcome.parse):
            parse(frame)

    def test_commands(self) -> None:
        after = Cursor("e", 3)
        assert frames_of.hello(1, "t", "c", "d") == {"op": "hello", "id": 1, "token": "t", "client": "c", "device": "d"}
        assert frames_of.auth_refresh(1, "t") == {"op": "auth.refresh", "id": 1, "token": "t"}
        assert frames_of.subscribe(1, "s", None, {}) == {"op": "subscribe", "id": 1, "session": "s"}
        assert frames_of.subscribe(1, "s", after, {"replay": "every", "watching": False}) == {
            "op": "subscribe", "id": 1, "session": "s", "after": "e:3", "replay": "every", "watching": False,
        }  # fmt: skip
        assert frames_of.unsubscribe(1, "s") == {"op": "unsubscribe", "id": 1, "session": "s"}
        assert frames_of.input_send(1, "s", "i", "text") == {
            "op": "input.send", "id": 1, "session": "s", "inputId": "i", "content": "text",
        }  # fmt: skip
        assert frames_of.input_send(1, "s", "i", "text", "m")["mode"] == "m"
        assert frames_of.command("run.cancel", 1, "s", runId="r", mode=None) == {
            "op": "run.cancel", "id": 1, "session": "s", "runId": "r",
        }  # fmt: skip

    def test_commands_of_tools_say_null_where_they_mean_it(self) -> None:
        call = {"id": 1, "session": "s", "toolCallId": "c", "claimId": "k"}
        assert frames_of.tool_claim(1, "s", "c", "k", 15_000) == {"op": "tool.claim", **call, "leaseMs": 15_000}
        assert frames_of.tool_release(1, "s", "c", "k") == {"op": "tool.release", **call}
        assert frames_of.tool_progress(1, "s", "c", "k", None) == {"op": "tool.progress", **call, "value": None}
        assert frames_of.tool_result(1, "s", "c", "k", {"result": None}) == {
            "op": "tool.result", **call, "result": None,
        }  # fmt: skip
        assert frames_of.tool_result(1, "s", "c", "k", {"error": "x"}) == {"op": "tool.result", **call, "error": "x"}

    def test_encoding_is_compact_and_keeps_characters(self) -> None:
        text = encode({"a": "ü😀", "b": 1})
        assert text == '{"a":"ü😀","b":1}'
        assert parse_object(text) == {"a": "ü😀", "b": 1}

    @pytest.mark.parametrize("text", ["", "[]", "1", "{", "null", '"x"', "[" * 100_000, '{"a":' * 100_000])
    def test_what_is_no_object(self, text: str) -> None:
        assert parse_object(text) is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("not_allowed", NotAllowed),
            ("queue_full", QueueFull),
            ("run_not_found", NotFound),
            ("run_ended", TooLate),
            ("role_required", RoleRequired),
            ("mode_not_allowed", ModeRefused),
            ("busy", ModeRefused),
            ("cannot_inject", ModeRefused),
            ("session_full", SessionFull),
            ("session_closed", SessionClosed),
            ("arguments_invalid", ValueRefused),
            ("result_invalid", ValueRefused),
            ("payload_invalid", ValueRefused),
            ("schema_invalid", ValueRefused),
            ("config_invalid", ValueRefused),
            ("bad_option", ValueRefused),
            ("call_not_found", NotFound),
            ("approval_not_found", NotFound),
            ("handoff_not_found", NotFound),
            ("key_not_found", NotFound),
            ("deadline_passed", TooLate),
            ("already_claimed", NotFirst),
            ("already_resolved", NotFirst),
            ("already_voted", NotFirst),
            ("session_exists", NotFirst),
            ("not_declared", NotYours),
            ("not_targeted", NotYours),
            ("not_claimed", NotYours),
            ("not_owner", NotYours),
            ("something_new", CommandRefused),
        ],
    )
    def test_are_typed(self, code: str, kind: type[CommandRefused]) -> None:
        error = refusal({"op": "error", "id": 1, "code": code, "message": "m", "retryable": True, "right": "send"})
        assert type(error) is kind
        assert (error.code, error.message, error.retryable, error.data) == (code, "m", True, {"right": "send"})
        assert str(error) == f"{code}: m"

    def test_retry_after(self) -> None:
        assert refusal({"code": "rate_limited", "retry_after_ms": 250}).retry_after_s == 0.25
        assert refusal({"code": "rate_limited"}).retry_after_s is None
        assert refusal({}).code == "internal"


class TestCloseCodes:
    @pytest.mark.parametrize(
        ("code", "action"),
        [
            (None, Action.RECONNECT),
            (1006, Action.RECONNECT),
            (1011, Action.RECONNECT),
            (3999, Action.RECONNECT),
            (4000, Action.RECONNECT),
            (4100, Action.RECONNECT),
            (4102, Action.RECONNECT),
            (4200, Action.ELSEWHERE),
            (4201, Action.ELSEWHERE),
            (4300, Action.NEW_TOKEN),
            (4400, Action.NEVER),
            (4429, Action.NEVER),
            (1009, Action.NEVER),
            (4500, Action.RECONNECT),
            (1000, Action.DONE),
            (1001, Action.DONE),
        ],
    )
    def test_classes(self, code: int | None, action: Action) -> None:
        assert classify_close(code).action is action

    def test_the_reason(self) -> None:
        advice = classify_close(4200, '{"code":"draining","retry_after_ms":350}')
        assert advice == CloseAdvice(Action.ELSEWHERE, 4200, "draining", 0.35)

    @pytest.mark.parametrize("reason", ["", "going", "[]", '{"retry_after_ms":"x"}', '{"retry_after_ms":-1}', "{"])
    def test_an_odd_reason(self, reason: str) -> None:
        assert classify_close(4200, reason).retry_after_s is None

    @pytest.mark.parametrize("value", ["1e300", "1" + "0" * 400, "Infinity"])
    def test_a_pause_is_bounded(self, value: str) -> None:
        assert classify_close(4200, f'{{"retry_after_ms":{value}}}').retry_after_s == RETRY_AFTER_CAP_S

    @given(st.none() | st.integers(), texts | json_values.map(json.dumps))
    def test_never_raises(self, code: int | None, reason: str) -> None:
        classify_close(code, reason)


class TestBackoff:
    def test_full_jitter_is_the_formula_of_the_protocol(self) -> None:
        assert [full_jitter_s(n, 1.0) for n in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
        assert full_jitter_s(3, 0.5) == 1.0

    @given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
    def test_full_jitter_stays_inside(self, attempt: int, rand: float) -> None:
        assert 0 <= full_jitter_s(attempt, rand) <= 30.0

    def test_counts_and_resets(self) -> None:
        backoff = Backoff(base_s=1, cap_s=3)
        assert [backoff.next_s(1.0) for _ in range(3)] == [1, 2, 3]
        backoff.reset()
        assert backoff.next_s(1.0) == 1


class TestPacer:
    def test_a_burst_then_a_rate(self) -> None:
        pacer = Pacer(per_second=10, burst=10)
        assert [pacer.reserve_s(0.0) for _ in range(9)] == pytest.approx([0.0] * 9)
        assert pacer.reserve_s(0.0) == pytest.approx(1 / 9)

    @given(st.lists(st.floats(0, 0.2), min_size=1, max_size=300))
    def test_never_more_than_the_limit_in_any_second(self, gaps: list[float]) -> None:
        pacer, now, times = Pacer(per_second=50, burst=100), 0.0, []
        for gap in gaps:
            now += gap
            now += pacer.reserve_s(now)
            times.append(now)
        for index, start in enumerate(times):
            within = sum(1 for moment in times[index:] if moment < start + 1)
            assert within <= 100 + 50
