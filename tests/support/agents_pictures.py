"""The agent in the pictures of the console, given to a worker as `tests.support.agents_pictures:planner`."""

from __future__ import annotations

import asyncio
import re

from agent_worker.context import Agent, SessionContext

PACE_S = 0.03
"""Between two words."""


async def _plan(ctx: SessionContext) -> None:
    """Looks trains up, answers with a table, asks before it books; says anything else in one sentence."""
    content = ctx.input.content if ctx.input is not None else ""
    if "train" in content:
        await ctx.reasoning("They travel with a bicycle, so it should be one with few changes.")
        call = await ctx.tool_call("search_trains", {"from": "Ghent", "to": "Vienna", "day": "Friday", "bicycles": 1})
        await ctx.tool_result(call, '{"found": 3, "night": 1}')
        await _say(ctx, TRAINS)
    elif "Book" in content:
        await _say(ctx, "Two seats and a place for the bicycle, in the compartment next to it. ")
        decision = await ctx.approve(
            "Book two seats on the Nightjet for €178?",
            details={"train": "NJ 425", "seats": 2, "bicycles": 1, "total": "178.00 EUR"},
            options=("allow_once", "reject_once"),
        )
        await _say(ctx, "Booked." if decision.allowed else "I have not booked anything.")
    else:
        await _say(ctx, REST)


async def _say(ctx: SessionContext, text: str) -> None:
    for word in re.findall(r"\S+\s*", text):
        await ctx.text(word)
        await asyncio.sleep(PACE_S)


TRAINS = """There are three good ones on Friday. With a bicycle I would take the night train: **one change**, in Brussels.

| train | leaves | arrives | changes | bicycle |
|---|---|---|---|---|
| **Nightjet 425** | 17:54 | 08:05 | 1 | yes |
| ICE 15 and RJX 61 | 06:21 | 19:42 | 2 | yes |
| EC 9 and RJX 67 | 08:59 | 23:12 | 3 | no |

The Nightjet still has seats; sleeping places are gone.
"""

REST = """From Vienna it is an easy ride along the **Danube cycle path**:

1. Leave the station by the south exit, and follow the signs to the canal.
2. At the *Nussdorf* lock, take the path upstream.
3. After Klosterneuburg it is flat, with the river on your right, all the way to Tulln. There is a swimming place
   before the bridge, and a café that is open until eight in the evening.

It is 38 km, and almost all of it is away from cars. In Tulln the path goes on through the gardens, and the station is
two streets further: every half hour a train goes back to the city, with room for bicycles.
"""

planner = Agent("Planner", _plan, accepts_steering=True)
