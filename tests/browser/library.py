"""A session of five megabytes of text, for tests and measurements of reading."""

from __future__ import annotations

from antiphon_client import Client
from tests.browser.venue import Venue

WORDS = 800_000
"""Of seven characters, with the space behind them: more than 5 MB."""


async def write_library(venue: Venue, session: str, *, chapters: int, illustrated: bool) -> int:
    """Has the agent write it, chapter by chapter, each an answer; returns how many characters it has."""
    kind = "illustrated chapter" if illustrated else "chapter"
    written = 0
    async with Client(venue.url, token=venue.token("user-1")) as client:
        reading = client.session(session)
        for number in range(chapters):
            written += len(await reading.answer(f"{kind} {number} of {WORDS // chapters} words"))
    return written
