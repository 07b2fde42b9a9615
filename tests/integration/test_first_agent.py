"""The pages for authors run as they are: the first agent with the real command line, and the tests of the page for tests."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.dev import dev

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.timeout(300)


def blocks(page: str, heading: str) -> list[tuple[str, str]]:
    """Language and text of the blocks under a heading."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return _BLOCK.findall(text)


@pytest.mark.parametrize(("page", "heading"), [("docs/AGENTS.md", "Your first agent"), ("README.md", "Your own agent")])
async def test_the_first_agent(tmp_path: Path, page: str, heading: str) -> None:
    """The file is written as the page has it, `antiphon dev` started as it says, and what it says next is typed."""
    (_, code), *rest = blocks(page, heading)
    commands = [shlex.split(line) for _, text in rest for line in text.splitlines() if line.startswith("antiphon ")]
    assert len([line for line in code.splitlines() if line]) <= 15, "it is said to be short"
    (tmp_path / "hello.py").write_text(code, encoding="utf-8")
    starting = next(words for words in commands if words[1] == "dev")
    sending = next(words for words in commands if words[1] == "send")
    assert starting == ["antiphon", "dev", "--agent", "hello:agent"]
    async with dev(tmp_path / "data", *starting[2:], cwd=tmp_path) as running:
        sent = await running.run(*sending[1:])
        assert sent.code == 0, sent
        assert "You said 'Good morning'. I say it again, one word at a time." in sent.out
        tailed = await running.run("tail", "demo", "--from-start", "--until-idle")
        assert "Good morning" in tailed.out
        assert await running.end(signal.SIGTERM) == 0


def _tests() -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    found: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
    for language, code in _BLOCK.findall((ROOT / "docs/TESTING.md").read_text(encoding="utf-8")):
        if language == "python":
            namespace: dict[str, Any] = {"__name__": "page"}
            exec(compile(code, "docs/TESTING.md", "exec"), namespace)  # noqa: S102 (the page is ours)
            found |= {name: value for name, value in namespace.items() if name.startswith("test_")}
    return found


@pytest.mark.parametrize("name", _tests())
async def test_the_page_for_tests(name: str) -> None:
    async with asyncio.timeout(280):
        await _tests()[name]()


def test_the_page_for_tests_has_some() -> None:
    assert len(_tests()) >= 3
