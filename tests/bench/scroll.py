"""How smoothly a session of five megabytes scrolls in the console, in real Chromium: `python -m tests.bench.scroll`.

Opens the session at `antiphon dev`, and scrolls up from its end, page of history by page of history, to its beginning:
first as one reads (`reading`, 120 px a frame), then as one flings (`flinging`, 3,000 px a frame). A figure is the median of
the runs. Times between frames are those of `requestAnimationFrame`; without a graphics card, as in most containers, the
browser draws with the processor, which costs more. It is no test: nothing fails for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, CDPSession, async_playwright

from antiphon.bench.rows import machine
from tests.browser.library import write_library
from tests.browser.logged import conversation
from tests.browser.room import Room, open_room
from tests.browser.venue import Line, Venue, running_venue

CHROMIUM = Path(os.environ.get("ANTIPHON_TEST_CHROMIUM", "/usr/bin/chromium"))
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-precise-memory-info"]
SESSION = "library"
CHAPTERS = 200
READING = {"step": 120, "frames": 600}
FLINGING = {"step": 3000, "frames": 100_000}

#: Scrolls up by `step` px a frame for `frames` frames, or to the first message (`first`, its id); gives ms between frames.
SCROLL = """async ({step, frames, first}) => {
  let node = document.querySelector('[role=log]');
  while (!/auto|scroll/.test(getComputedStyle(node).overflowY)) node = node.parentElement;
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  let most = 0, at = await frame();
  for (let n = 0; n < frames; n += 1) {
    node.scrollTop -= step;
    const now = await frame();
    times.push(now - at);
    at = now;
    if (n % 20) continue;
    most = Math.max(most, document.getElementsByTagName('*').length);
    if (node.scrollTop === 0 && document.querySelector(`[data-message="${first}"]`)) break;
  }
  return {times, most};
}"""


async def measure(venue: Venue, line: Line, browser: Browser, first: str) -> dict[str, float]:
    """One run: a new tab, opened and scrolled."""
    async with open_room(browser, viewport={"width": 1280, "height": 900}) as room:
        cdp = await room.page.context.new_cdp_session(room.page)
        link = f"{line.url}/#session={SESSION}&token={venue.token('user-1')}"
        figures = {"open_ms": await _open(room, link)}
        for name, how in (("reading", READING), ("flinging", FLINGING)):
            found = await room.page.evaluate(SCROLL, how | {"first": first})
            figures |= _of(name, found["times"])
            figures[f"{name}_elements"] = found["most"]
        figures["heap_mb"] = await _heap_mb(cdp)
        return figures


async def _open(room: Room, link: str) -> float:
    """Milliseconds from the navigation to the last message on the screen."""
    await room.join(link)
    await room.until("document.querySelector('[role=log] [data-message]')")
    now: float = await room.state("performance.now()")
    return now


def _of(name: str, times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    figures = {f"{name}_frame_{key}_ms": ordered[int(part * (len(ordered) - 1))] for key, part in at.items()}
    figures[f"{name}_frame_max_ms"] = ordered[-1]
    figures[f"{name}_frames"] = len(ordered)
    figures[f"{name}_frames_over_50_ms"] = sum(time > 50 for time in ordered)
    return figures


async def _heap_mb(cdp: CDPSession) -> float:
    """What JavaScript keeps, after a collection."""
    await cdp.send("HeapProfiler.collectGarbage")
    usage = await cdp.send("Runtime.getHeapUsage")
    return float(usage["usedSize"]) / 1_000_000


async def main(runs: int, *, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with running_venue(Path(name) / "data") as venue, venue.line() as line, async_playwright() as driver:
            written = await write_library(venue, SESSION, chapters=CHAPTERS, illustrated=True)
            logged = await conversation(venue.url, venue.token("user-1"), SESSION)
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=ARGS)
            measured = [await measure(venue, line, browser, logged[0].id) for _ in range(runs)]
            _print(written, len(logged), browser.version, measured, as_json=as_json)
            await browser.close()


def _print(written: int, messages: int, chromium: str, runs: list[dict[str, float]], *, as_json: bool) -> None:
    columns = {key: [run[key] for run in runs] for key in runs[0]}
    figures = {
        key: {
            "median": round(statistics.median(values), 1),
            "least": round(min(values), 1),
            "greatest": round(max(values), 1),
        }
        for key, values in columns.items()
    }
    result: dict[str, Any] = {"name": "scroll", "runs": len(runs), "characters": written, "messages": messages}
    result |= {"chromium": chromium, "figures": figures, "machine": machine()}
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(f"scroll: {written:,} characters in {messages} messages, Chromium {chromium}")
    print(f"  median of {len(runs)} runs (least to greatest)")
    for key, each in figures.items():
        print(f"  {key:28} {each['median']:>10,} ({each['least']:,} to {each['greatest']:,})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How smoothly five megabytes scroll in the console.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    asyncio.run(main(options.runs, as_json=options.json))
