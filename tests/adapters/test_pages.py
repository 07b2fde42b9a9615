"""The examples of docs/agents make agents, with the frameworks that they are for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent_worker.context import Agent

PAGES = sorted((Path(__file__).parents[2] / "docs/agents").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_make_agents(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "no key")
    codes = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert codes
    for code in codes:
        names: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
        exec(compile(code, str(page), "exec"), names)  # noqa: S102 (it is ours)
        assert isinstance(names["agent"], Agent)


def test_every_adapter_has_a_page() -> None:
    modules = {path.stem.replace("_", "-") for path in (PAGES[0].parents[2] / "agent_worker/adapters").glob("*.py")}
    shared = {
        "--init--",
        "agui-messages",
        "capabilities",
        "conversation",
        "declaring",
        "http",
        "loop",
        "sse",
        "toolbox",
    }
    assert modules - shared == {page.stem for page in PAGES} - {"README"}
