"""`antiphon usage`: what models have cost, summed out of the log, by whom, when and of which version."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from antiphon.usage import Spent, Tally, Wanted
from broker.clock import now_ms
from broker.errors import ConfigError
from broker.events import Entry, OtherEvent, Participant
from tests.support.nats import NatsNode
from tests.support.site import LEASE_S, open_site
from tests.support.stack import Stack

pytestmark = [pytest.mark.timeout(120), pytest.mark.nats_roles]


async def sums(stack: Stack, *args: str) -> list[dict[str, Any]]:
    code, output = await stack.run("usage", "--json", *args)
    assert code == 0, output
    return [json.loads(line) for line in output.splitlines()]


async def test_sums_by_tenant_agent_and_day(nats_server: NatsNode, tmp_path: Path) -> None:
    async with (
        open_site(nats_server.url) as site,
        Stack(tmp_path / "stack", nats_server.url, partitions=2, lease_s=LEASE_S) as stack,
    ):
        assert await sums(stack) == []
        assert (await stack.run("usage"))[1].split() == [
            *("tenant", "agent", "day", "calls", "input", "output", "cached_input", "reasoning")
        ]
        began = time.strftime("%Y-%m-%d", time.gmtime())
        first = await stack.worker("tests.support.agents:costs", worker_version="1.0")
        for session, content in (("s", "10 5;3 1"), ("t", "1 1"), ("acme~s", "100 50")):
            await site.ended(session, await site.send(session, content, "a"))
        assert await first.terminate() == 0
        await stack.worker("tests.support.agents:costs", worker_version="2.0")
        await site.ended("s", await site.send("s", "7 7", "b"))
        if time.strftime("%Y-%m-%d", time.gmtime()) != began:
            pytest.skip("midnight has come in between")

        counted = {"calls": 4, "input_tokens": 21, "output_tokens": 14, "cached_input_tokens": 9}
        rest = {"agent": "costs", "day": began, "reasoning_tokens": 0}
        theirs = {"calls": 1, "input_tokens": 100, "output_tokens": 50, "cached_input_tokens": 50}
        assert await sums(stack) == [{"tenant": "-", **counted, **rest}, {"tenant": "acme", **theirs, **rest}]
        by_version = await sums(stack, "--by", "version", "--days", "1")
        assert [(each["version"], each["input_tokens"]) for each in by_version] == [("1.0", 114), ("2.0", 7)]
        by_model = await sums(stack, "--by", "session,model", "--tenant", "-")
        assert [(each["session"], each["model"], each["calls"]) for each in by_model] == [
            ("s", "model-0", 1),
            ("s", "model-1", 2),
            ("t", "model-1", 1),
        ]
        code, table = await stack.run("usage", "--tenant", "acme", "--by", "tenant,provider")
        assert code == 0
        assert [line.split() for line in table.splitlines()] == [
            ["tenant", "provider", "calls", "input", "output", "cached_input", "reasoning"],
            ["acme", "ours", "1", "100", "50", "50", "0"],
        ]


@pytest.mark.parametrize(
    "args", [("--by", "mood"), ("--by", ","), ("--days", "0"), ("--days", "x"), ("--tenant", "A b")]
)
async def test_what_is_wrong_is_said_in_one_line(nats_server: NatsNode, tmp_path: Path, args: tuple[str, str]) -> None:
    async with Stack(tmp_path / "stack", nats_server.url, partitions=2) as stack:
        code, output = await stack.run("usage", *args)
    (line,) = output.splitlines()
    assert (code, line.startswith("antiphon: ")) == (1, True)


def test_what_somebody_else_has_written_is_counted_as_far_as_it_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(("agent", "model"))
    for value in ({"inputTokens": -1, "outputTokens": "9", "reasoningTokens": True, "model": 5}, "nothing", None):
        event = OtherEvent("CUSTOM", {"type": "CUSTOM", "name": "antiphon.usage", "value": value})
        tally.take("s", Entry("1-1", now_ms(), (event,), by=Participant("agent", "a")))
    assert tally.found == {("a", "5"): Spent(calls=1)}
    monkeypatch.setattr("antiphon.usage.ROWS_MAX", 1)
    other = OtherEvent("CUSTOM", {"type": "CUSTOM", "name": "antiphon.usage", "value": {}})
    with pytest.raises(ConfigError, match="--by"):
        tally.take("s", Entry("1-1", now_ms(), (other,)))


def test_days_are_those_of_utc_and_today_is_one_of_them() -> None:
    noon = 20_000 * 86_400 + 43_200
    assert Wanted((), 1).since_ms(noon) == 20_000 * 86_400_000
    assert Wanted((), 7).since_ms(noon) == 19_994 * 86_400_000
