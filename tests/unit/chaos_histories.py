"""Good histories of sessions, made by chance, and faults that are planted in them: what the checker of faults is tested by.

A `Scene` is a log as gateways and workers would have written it, with what clients were told. `views` adds what readers
saw of it: cut anywhere, resumed, merged or not, with a gap now and then.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.agent import said_of
from tests.chaos.findings import is_delta
from tests.chaos.history import Answer, CaughtUp, Copy, EntrySeen, Gap, Joined, Left, Logged, Record, Sent, Snapshot

Event = dict[str, Any]
READERS = 3
SESSION = "scene"
WORKER = {"kind": "agent", "id": "w"}


def user(n: int) -> dict[str, str]:
    return {"kind": "user", "id": f"user-{n}"}


@dataclass(slots=True)
class Scene:
    """A log that grows, and its clients' commands."""

    rng: random.Random
    log: list[Logged] = field(default_factory=list)
    told: list[Record] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=lambda: [Copy(f"n{n}", "S00", 9, 12) for n in range(3)])
    fence: int = 0
    n: int = 0
    run: str = ""

    @classmethod
    def of(cls, rng: random.Random) -> Scene:
        """A session with everything in it that a fault may be planted at, and more of it by chance."""
        scene = cls(rng)
        acts: list[Callable[[], None]] = [scene.stream, scene.cut_short, scene.tool, scene.approval, scene.taken_back]
        acts += rng.choices(
            [scene.stream, scene.cut_short, scene.tool, scene.approval, scene.taken_back], k=rng.randrange(3)
        )
        rng.shuffle(acts)
        scene.claim()
        for act in (scene.stream, *acts):
            act()
            if rng.random() < 0.3:
                scene.claim()
        return scene

    # --- writing -----------------------------------------------------------------------------------------------------

    def put(self, id_: str, *events: Event, **fields: Any) -> int:
        """An entry at the next place; there are others' between."""
        seq = (self.log[-1].seq if self.log else 0) + self.rng.randint(1, 3)
        entry = {"id": id_, "ts": 1_000 + seq, **fields, "events": list(events)}
        self.log.append(Logged(seq, entry))
        return seq

    def write(self, *events: Event, **fields: Any) -> int:
        """A record of the lane's owner."""
        self.n += 1
        return self.put(f"{self.fence}-{self.n}", *events, lane="main", run=self.run, by=WORKER, **fields)

    def delta(self, event: Event, off: int) -> None:
        self.n += 1
        self.put(f"{self.fence}-{self.n}", event, lane="main", off=off)

    def claim(self) -> None:
        owner = {"type": "session.owner", "lane": "main", "kind": "agent", "id": "w", "can": ["inject"]}
        self.fence = self.put(f"own-{len(self.log)}", owner, lane="main", by=WORKER)
        self.n = 0

    def command(self, who: int, op: str, reply: dict[str, Any], **fields: Any) -> None:
        """A command and its acknowledgement, sent twice now and then."""
        key = f"{op}-{len(self.told)}"
        name = user(who)["id"]
        for _ in range(self.rng.randint(1, 2)):
            self.told.append(Sent(0, name, op, key, {"session": SESSION, **fields}))
        self.told.append(Answer(0, name, op, key, True, reply))

    # --- what happens ------------------------------------------------------------------------------------------------

    def send(self, content: str = "") -> str:
        """Somebody's input, acknowledged."""
        input_id = f"i{len(self.log)}"
        content = content or f"stream {self.rng.randint(3, 9)} 9 {input_id}"
        who = self.rng.randrange(READERS)
        seq = self.put(input_id, {"type": "input.sent", "inputId": input_id, "content": content}, by=user(who))
        self.command(who, "input.send", {"inputId": input_id, "seq": seq}, inputId=input_id, content=content)
        return input_id

    def start(self, input_id: str) -> None:
        self.run = f"run_{input_id}"
        self.write(
            {"type": "RUN_STARTED", "threadId": SESSION, "runId": self.run, "protocolVersion": "1.0"},
            {"type": "input.applied", "inputId": input_id, "runId": self.run, "messageId": f"msg_{input_id}"},
        )

    def finish(self, outcome: str = "success") -> None:
        self.write({"type": "RUN_FINISHED", "threadId": SESSION, "runId": self.run, "outcome": {"type": outcome}})

    def say(self, message: str, text: str, reason: str = "complete") -> None:
        """A message, token by token, and its segment."""
        self.write({"type": "TEXT_MESSAGE_START", "messageId": message, "role": "assistant"})
        at = 0
        for token in text.split(" ")[:-1]:
            self.delta({"type": "TEXT_MESSAGE_CONTENT", "messageId": message, "delta": f"{token} "}, at)
            at += len(token) + 1
        self.write(
            _segment(message, text, reason),
            {"type": "TEXT_MESSAGE_END", "messageId": message},
        )

    def stream(self) -> None:
        input_id = self.send()
        self.start(input_id)
        self.say(f"m_{input_id}", self.whole(input_id))
        self.finish()

    def cut_short(self) -> None:
        """A worker is lost in the middle, and another one goes on."""
        input_id = self.send()
        self.start(input_id)
        text = self.whole(input_id)
        half = text.index(" ") + 1
        self.say(f"m_{input_id}_1", text[:half], "worker_lost")
        self.claim()
        self.write({"type": "run.taken_over", "runId": self.run, "attempt": 2, "policy": "continue"})
        self.say(f"m_{input_id}_2", text[half:])
        self.finish()

    def tool(self) -> None:
        """Two claim a call; the first one's result counts."""
        input_id = self.send(f"tool once i{len(self.log)}")
        self.start(input_id)
        call, (first, second) = f"call_{input_id}", self.rng.sample(range(READERS), 2)
        args = '{"for":1}'
        self.write({"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "pick"})
        self.delta({"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": args}, 0)
        self.write(_segment(call, args, "complete"), {"type": "TOOL_CALL_END", "toolCallId": call})
        asked = {"type": "tool.requested", "toolCallId": call, "name": "pick", "args": {"for": 1}, "executor": "client"}
        self.write(asked)
        for who in (first, second):
            claim = {"type": "tool.claimed", "toolCallId": call, "claimId": f"c{who}", "expiresAt": 1 << 40}
            self.put(f"claim:{call}:{who}", claim, by=user(who))
        result = {"by": f"c{first}"}
        resolved = {"type": "tool.resolved", "toolCallId": call, "claimId": f"c{first}", "result": result}
        self.put(f"result:{call}", resolved, by=user(first))
        fields = {"toolCallId": call, "claimId": f"c{first}", "result": result}
        self.command(first, "tool.result", {"toolCallId": call, "status": "resolved"}, **fields)
        content = f'{{"by":"c{first}"}}'
        self.write({"type": "TOOL_CALL_RESULT", "messageId": f"res_{call}", "toolCallId": call, "content": content})
        self.finish()

    def approval(self) -> None:
        input_id = self.send(f"approve i{len(self.log)}")
        self.start(input_id)
        approval, who = f"apr_{input_id}", self.rng.randrange(READERS)
        asked = {"type": "approval.requested", "approvalId": approval, "kind": "approval", "message": "Go on?"}
        self.write(asked | {"options": ["allow_once", "reject_once"], "default": "reject_once", "quorum": 1})
        answer = {"type": "approval.responded", "approvalId": approval, "option": "allow_once"}
        self.put(f"respond:{approval}", answer, by=user(who))
        reply = {"approvalId": approval, "status": "resolved", "decision": "allow_once"}
        self.command(who, "approval.respond", reply, approvalId=approval, option="allow_once")
        self.finish()

    def taken_back(self) -> None:
        """An input that never runs."""
        input_id = self.send()
        who = self.rng.randrange(READERS)
        self.put(f"cancel:{input_id}", {"type": "input.cancel.requested", "inputId": input_id}, by=user(who))
        self.command(who, "input.cancel", {"inputId": input_id, "status": "cancelled"}, inputId=input_id)

    def whole(self, input_id: str) -> str:
        content = next(e["content"] for _, e in self.events("input.sent") if e["inputId"] == input_id)
        whole = said_of(content)
        assert whole is not None
        return whole

    # --- finding and changing ----------------------------------------------------------------------------------------

    def events(self, type_: str) -> list[tuple[Logged, Event]]:
        return [(logged, e) for logged in self.log for e in logged.entry["events"] if e["type"] == type_]

    def first(self, type_: str, **wanted: Any) -> tuple[Logged, Event]:
        return next((at, e) for at, e in self.events(type_) if wanted.items() <= e.items())

    def remove(self, type_: str, **wanted: Any) -> Logged:
        """Takes the first entry away that holds such an event."""
        logged, _ = self.first(type_, **wanted)
        self.log.remove(logged)
        return logged


def _segment(message: str, text: str, reason: str) -> Event:
    length = len(text)
    segment = {"type": "message.segment", "messageId": message, "offset": 0, "text": text, "length": length}
    return segment | {"final": True, "reason": reason}


# --- what readers see ----------------------------------------------------------------------------------------------------


def views(scene: Scene, *, gaps: bool = True) -> list[Record]:
    """The whole history: what the scene's clients were told, what each of them saw, and the log.

    With `gaps` one of them is told to forget everything now and then, and gets it again.
    """
    records = list(scene.told)
    for n in range(READERS):
        records += _view(scene, f"user-{n}", every=n == 0, gaps=gaps)
    return [*records, *scene.copies, *scene.log]


def _view(scene: Scene, who: str, *, every: bool, gaps: bool) -> list[Record]:
    """Over some connections, each of which replays what the log held when it came, and is live then."""
    rng, log = scene.rng, scene.log
    cuts = sorted(rng.sample(range(1, len(log)), k=min(3, len(log) - 1)))
    records: list[Record] = []
    at = 0
    for sub, end in enumerate((*cuts, len(log)), 1):
        after = log[at - 1].seq if at else None
        records.append(Joined(0, who, sub, after, every))
        if after is None:
            records.append(Snapshot(0, who, sub, 0))
        elif gaps and rng.random() < 0.2:
            records += [Gap(0, who, sub, 0, log[at - 1].seq), Snapshot(0, who, sub, 0)]
            at = 0
        head = rng.randint(at, end)
        replay = frames(log[at:head], log[at - 1].seq if at else 0, merged=not every, live=False)
        live = frames(log[head:end], log[head - 1].seq if head else 0, merged=False, live=True)
        records += [EntrySeen(0, who, sub, frame) for frame in replay]
        records.append(CaughtUp(0, who, sub, log[head - 1].seq if head else 0))
        records += [EntrySeen(0, who, sub, frame) for frame in live]
        records.append(Left(0, who, sub, "cut"))
        at = end
    return records


def frames(logged: list[Logged], last: int, *, merged: bool, live: bool) -> list[dict[str, Any]]:
    """Entries as a gateway sends them: in a merged replay neighbouring deltas of a text are one frame."""
    made: list[dict[str, Any]] = []
    for each in logged:
        entry = copy.deepcopy(each.entry)
        frame = {"seq": each.seq, "prev": last, **entry}
        last = each.seq
        if live:
            for event in frame["events"]:
                if event["type"] == "message.segment":
                    del event["text"]
        before = made[-1] if made else None
        if merged and before is not None and is_delta(entry) and is_delta(before):
            before["events"][0]["delta"] += frame["events"][0]["delta"]
            before |= {"seq": frame["seq"], "id": frame["id"], "merged": before.get("merged", 1) + 1}
        else:
            made.append(frame)
    return made
