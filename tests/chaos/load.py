"""What people do in a round: they say things, steer, stop, run tools, decide, and come and go."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import history
from tests.chaos.agent import TOOL
from tests.chaos.clients import Command, Manner, RecordingClient
from tests.support.place import Frame

ON_BUSY = ("auto", "enqueue", "interrupt", "rollback", "inject", "reject")
CLAIM_MS = 1500
_TOOLS = [{"name": TOOL, "description": "Picks something"}]
_PAUSE_S = 0.25, 0.9


@dataclass(slots=True)
class Room:
    """A session of a round, with three people in it, and the record of what happened."""

    session: str
    on_busy: str
    clients: list[RecordingClient] = field(default_factory=list)
    records: list[history.Record] = field(default_factory=list)
    """What happened to its clients."""
    logged: list[history.Logged] = field(default_factory=list)
    """What the log held when it was last looked at."""
    over: bool = False
    """Nobody begins anything new; what was begun is brought to its end."""

    @property
    def history(self) -> list[history.Record]:
        return [*self.records, *self.logged]

    @property
    def acknowledged(self) -> int:
        """Inputs that were."""
        answers = (record for record in self.records if isinstance(record, history.Answer))
        return len({answer.key for answer in answers if answer.ok and answer.op == "input.send"})

    @classmethod
    def of(cls, session: str, on_busy: str, urls: list[str], token: Callable[[str], str], rng: random.Random) -> Room:
        """Two who talk, of whom one takes every entry by itself, and one who is slow and restless."""
        room = cls(session, on_busy)
        manners = (Manner(), Manner(every=True, stays_s=2.0), Manner(every=rng.random() < 0.5, slow_s=1.0, stays_s=2.0))
        since = time.monotonic()
        for n, manner in enumerate(manners):
            person = _Person(room, random.Random(f"{rng.random()}"), talks=n < 2)
            name = f"{session}-user{n}"
            client = RecordingClient(
                name, session, urls, token(name), person.rng, manner, room.records.append, since, _TOOLS
            )
            client.on_event, client.on_reply, client.on_turn = person.on_event, person.on_reply, person.on_turn
            room.clients.append(client)
        return room


@dataclass(slots=True)
class _Person:
    """What one of them does."""

    room: Room
    rng: random.Random
    talks: bool
    said: int = 0
    claims: int = 0
    next_at: float = 0.0
    created: bool = False
    runs: list[str] = field(default_factory=list)

    # --- by itself ---------------------------------------------------------------------------------------------------

    def on_turn(self, client: RecordingClient) -> None:
        if not self.created:
            self.created = True
            client.begin("session.update", "update", config={"onBusy": self.room.on_busy})
        if self.room.over or not self.talks or time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + self.rng.uniform(*_PAUSE_S)
        if sum(command.op == "input.send" for command in client.commands.values()) < 8:
            self._speak(client)

    def _speak(self, client: RecordingClient) -> None:
        input_id = f"{client.name}-{self.said}"
        self.said += 1
        fields: dict[str, Any] = {"inputId": input_id, "content": self._content(input_id)}
        if self.rng.random() < 0.4:
            fields["mode"] = self.rng.choice(ON_BUSY)
        client.begin("input.send", f"send-{input_id}", **fields)

    def _content(self, input_id: str) -> str:
        chance = self.rng.random()
        if chance < 0.2:
            return f"tool {self.rng.choice(('again', 'once'))} {input_id}"
        if chance < 0.35:
            return f"approve {input_id}"
        return f"stream {self.rng.randint(5, 40)} {self.rng.randint(20, 80)} {input_id}"

    # --- on what comes -----------------------------------------------------------------------------------------------

    def on_event(self, client: RecordingClient, frame: Frame, event: dict[str, Any]) -> None:
        match event["type"]:
            case "tool.requested" | "tool.released" | "tool.lapsed":
                self._claim(client, event["toolCallId"])
            case "approval.requested":
                self._decide(client, event["approvalId"])
            case "RUN_STARTED" if self.rng.random() < 0.12 and self.talks:
                mode = self.rng.choice(("immediate", "after_step"))
                client.begin("run.cancel", f"stop-{event['runId']}", runId=event["runId"], mode=mode)
            case _:
                pass

    def _claim(self, client: RecordingClient, call_id: str) -> None:
        self.claims += 1
        # Once for each event, also of one that comes again after a gap: an id names one claim for ever.
        claim_id = f"{client.name}-c{self.claims}"
        client.begin("tool.claim", f"claim-{claim_id}", toolCallId=call_id, claimId=claim_id, leaseMs=CLAIM_MS)

    def _decide(self, client: RecordingClient, approval_id: str) -> None:
        option = self.rng.choice(("allow_once", "allow_once", "reject_once"))
        client.begin("approval.respond", f"decide-{approval_id}", approvalId=approval_id, option=option)

    def on_reply(self, client: RecordingClient, command: Command, reply: Frame) -> None:
        if reply["op"] != "ok":
            return
        if command.op == "tool.claim":
            self._execute(client, reply["toolCallId"], reply["claimId"])
        elif command.op == "input.send" and self.rng.random() < 0.1:
            input_id = command.fields["inputId"]
            client.begin("input.cancel", f"cancel-{input_id}", inputId=input_id)

    def _execute(self, client: RecordingClient, call_id: str, claim_id: str) -> None:
        """Mostly there is a result; now and then the call is given up, or forgotten."""
        chance, call = self.rng.random(), {"toolCallId": call_id, "claimId": claim_id}
        if chance < 0.75:
            client.begin("tool.result", f"result-{claim_id}", **call, result={"by": claim_id})
        elif chance < 0.9:
            client.begin("tool.release", f"release-{claim_id}", **call)
