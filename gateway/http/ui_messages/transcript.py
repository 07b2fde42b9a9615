"""Messages of the transcript as the AI SDK's UI messages. Pure.

The same mapping is in the TypeScript client (`src/ai-sdk/transcript.ts`); both pass
`tests/conformance/cases/ui-transcripts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broker.subjects import MAIN_LANE, run_id_of
from gateway.http.ui_messages.files import file_parts
from gateway.http.ui_messages.tool_parts import parsed

UIMessage = dict[str, Any]

_INPUT_MESSAGE = "msg_"
"""Before the id of an input in that of its message."""
_TEXTS = {"assistant": "text", "reasoning": "reasoning"}


def ui_messages(messages: Iterable[Mapping[str, Any]], session: str) -> list[UIMessage]:
    """What a page begins with. What is attached to a message of the session are its parts of type `file`.

    An answer that is still being given comes as a stream, too, and takes its place then.
    """
    listed = _List(session)
    for message in messages:
        if message.get("lane") in (None, MAIN_LANE) and not message.get("rolledBack"):
            listed.add(message)
    return listed.messages


def _parts(text: dict[str, Any], files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where there are files alone, there is no text."""
    return [text, *files] if text["text"] or not files else files


class _List:
    def __init__(self, session: str) -> None:
        self._session = session
        self.messages: list[UIMessage] = []
        self._run: str | None = None
        self._answer: UIMessage | None = None
        self._answer_id = ""
        self._calls: dict[str, dict[str, Any]] = {}
        self._step_due = True

    def add(self, message: Mapping[str, Any]) -> None:
        run, role = message.get("run"), message["role"]
        files = file_parts(message.get("attachments"), self._session)
        if role == "user":
            input_id = message["id"].removeprefix(_INPUT_MESSAGE)
            parts = _parts({"type": "text", "text": message["text"]}, files)
            self.messages.append({"id": input_id, "role": "user", "parts": parts, "metadata": {"seq": message["seq"]}})
            self._begin(run, run_id_of(input_id))
        elif run is None and role == "assistant":
            parts = _parts({"type": "text", "text": message["text"], "state": "done"}, files)
            self.messages.append({"id": message["id"], "role": role, "parts": parts})
        elif role == "tool":
            self._result(message)
        elif role in _TEXTS:
            for part in _parts({"type": _TEXTS[role], "text": message["text"], "state": "done"}, files):
                self._add(message, part)
        elif role == "tool_call":
            self._call(message)

    def _begin(self, run: str | None, answer_id: str) -> None:
        self._run, self._answer, self._answer_id, self._step_due = run, None, answer_id, True

    def _add(self, message: Mapping[str, Any], part: dict[str, Any]) -> None:
        run = message["run"]
        if run != self._run:
            # Its input is on the page before.
            self._begin(run, run)
        if self._answer is None:
            self._answer = {"id": self._answer_id, "role": "assistant", "parts": [], "metadata": {"runId": run}}
            self.messages.append(self._answer)
        self._answer["parts"] += [{"type": "step-start"}, part] if self._step_due else [part]
        self._step_due = False

    def _call(self, message: Mapping[str, Any]) -> None:
        part = {
            "type": f"tool-{message.get('name') or ''}",
            "toolCallId": message["id"],
            "state": "output-error",
            "input": parsed(message["text"]) if message["text"] else {},
            "errorText": "outcome_unknown",
            "providerExecuted": True,
        }
        self._calls[message["id"]] = part
        self._add(message, part)

    def _result(self, message: Mapping[str, Any]) -> None:
        part = self._calls.get(message.get("toolCallId") or "")
        if part is None:
            return
        self._step_due = True
        output = parsed(message["text"])
        if isinstance(output, dict) and isinstance(output.get("error"), str) and output.keys() <= {"error", "message"}:
            part["errorText"] = output.get("message") or output["error"]
        else:
            del part["errorText"]
            part |= {"state": "output-available", "output": output}
