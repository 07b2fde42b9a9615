"""What the model of the tests says: decided by the conversation that it is given alone, so that any framework asks for it.

The last word of the user is the command; each answer depends on nothing else than what the request holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

_SAY = re.compile(r"say (\d+) words")
_USE = re.compile(r"use (\S+) (\{.*\})")
_FAIL = re.compile(r"fail (\d+) (\d+) times (\S+)")
_SPEAKER = re.compile(r"^[\w-]+: ")
WORD_S = 0.004


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, whatever wire it came by: what users have said, what the model has said since the last word of theirs,
    and the results since then.
    """

    users: Sequence[str]
    said: str = ""
    results: Sequence[str] = ()
    tools: Sequence[str] = ()
    images: int = 0

    @property
    def command(self) -> str:
        last = self.users[-1] if self.users else ""
        return _SPEAKER.sub("", last.split("\n\n")[-1]).split("\n")[0]


@dataclass(frozen=True, slots=True)
class Script:
    """What is answered: pieces of reasoning and of text, then a call of a tool if there is one; or a failure."""

    words: Sequence[str] = ()
    reasoning: Sequence[str] = ()
    call: tuple[str, dict[str, Any]] | None = None
    fail: tuple[int, int, str] | None = None
    """HTTP status, how many times (of this name), the name."""
    usage: tuple[int, int] = field(default=(11, 7))


def answer(asked: Asked) -> Script:
    """The answer to a request."""
    command = asked.command
    if found := _SAY.search(command):
        words = [f"w{i} " for i in range(int(found[1]))]
        said = len(asked.said.split())
        cut = "" if not asked.said or asked.said.endswith(" ") else asked.said.split()[-1]
        if cut and said and words[said - 1] != f"{cut} ":
            # The last word was cut in its middle: its rest first.
            return Script([words[said - 1][len(cut) :], *words[said:]])
        return Script([" ", *words[said:]] if cut else words[said:])
    if found := _FAIL.search(command):
        return Script(["it works now"], fail=(int(found[1]), int(found[2]), found[3]))
    if found := _USE.search(command):
        if asked.results:
            return Script([f"result: {asked.results[-1]}"])
        return Script(call=(found[1], orjson.loads(found[2])))
    if command == "think":
        return Script(["I have thought."], reasoning=["hmm, ", "let me see"])
    if command == "recall":
        return Script(["you said: ", " / ".join(asked.users)])
    if command == "look":
        return Script([f"{asked.images} images"])
    return Script([f"{word} " for word in f"you said: {command}".split()])
