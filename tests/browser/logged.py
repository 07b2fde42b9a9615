"""A session as its log folds to, by a reader that shares nothing with the page: what every tab must show."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon_client import CaughtUp, Client, Entry, Fold

CONVERSATION = ("user", "assistant", "system")


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of the conversation, as a person sees it: runs of white space are one space."""

    id: str
    role: str
    status: str
    text: str


async def entries(url: str, token: str, session: str) -> list[Entry]:
    """Every entry that the log holds, from its first on, as the Python client reads them."""
    found: list[Entry] = []
    async with Client(url, token=token) as client:
        async for event in client.session(session, every=True, watching=False).events():
            if isinstance(event, Entry):
                found.append(event)
            elif isinstance(event, CaughtUp):
                break
    return found


async def texts_said(url: str, token: str, session: str) -> list[str]:
    """What the last message of the agent has been, entry by entry of the log, each text once."""
    fold, said = Fold(), [""]
    for entry in await entries(url, token, session):
        fold.apply(entry)
        spoken = [message.text for message in fold.messages if message.role == "assistant"]
        if spoken and spoken[-1].strip() != said[-1]:
            said.append(spoken[-1].strip())
    return said


async def conversation(url: str, token: str, session: str) -> list[Shown]:
    """The messages that people and agents have said, in the log's order."""
    fold = Fold()
    for entry in await entries(url, token, session):
        fold.apply(entry)
    return [
        Shown(message.id, message.role, message.status, " ".join(message.text.split()))
        for message in fold.messages
        if message.role in CONVERSATION
    ]
