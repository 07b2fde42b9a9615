"""What `antiphon tail` prints, of a gateway that does as a script says."""

from __future__ import annotations

import pytest

from antiphon.talk import Access, tail
from clients.python.tests.scripted_gateway import (
    END,
    START,
    Peer,
    ScriptedGateway,
    caught_up,
    delta,
    entry,
    finished,
    running,
)

WORDS = 300


async def test_what_comes_at_once_is_printed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The state is idle as soon as the run's end has been read; what was said before it may not have been printed then."""

    async def script(peer: Peer) -> None:
        said = [delta(3 + n, 2 + n, 2 * n, "a ") for n in range(WORDS)]
        end = 2 + WORDS
        rest = (entry(end + 1, end, END), finished(end + 2, end + 1))
        await running(peer, caught_up(1), entry(2, 1, START, run="run_i"), *said, *rest)
        await peer.until_closed()

    async with ScriptedGateway(script) as gateway:
        assert await tail(Access(gateway.url, "t1"), "demo", from_start=False, as_json=False, until_idle=True) == 0
    assert capsys.readouterr().out.count("a ") == WORDS
