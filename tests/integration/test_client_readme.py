"""The examples of the Python client's page, executed as they stand against a real gateway and worker."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import antiphon_client
from antiphon_client import Client, sync
from tests.support.nats import single_server
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (Path(__file__).parents[2] / "clients/python/README.md").read_text(encoding="utf-8")
WORDS = len(PAGE.split())


def examples(heading: str) -> list[str]:
    """The blocks of Python under a heading."""
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found, heading
    return re.findall(r"^```python\n(.*?)^```", rest.partition("\n## ")[0], re.MULTILINE | re.DOTALL)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, str]]:
    directory = tmp_path_factory.mktemp("readme")
    (directory / "README.md").write_text(PAGE, encoding="utf-8")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stack.worker("tests.support.agents_client:helper"))
            gateway = tasks.create_task(stack.gateway())
        yield stack, gateway.result().url


def filled(code: str, world: tuple[Stack, str], session: str) -> str:
    """With the address and a token of this gateway, and a session of its own."""
    stack, url = world
    assert code.count("eyJ…") == code.count("http://localhost:8080")
    return code.replace("http://localhost:8080", url).replace("eyJ…", stack.token()).replace('"demo"', f'"{session}"')


async def printed(code: str, directory: Path) -> str:
    """What a script prints; it must end well."""
    script = directory / "script.py"
    script.write_text(code, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(script)),
        cwd=directory,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def cells(codes: list[str], names: dict[str, Any]) -> dict[str, Any]:
    """Executed one after the other, where a loop is running, as a notebook does; what is displayed is in `_`."""
    for code in codes:
        tree = ast.parse(code)
        if isinstance(tree.body[-1], ast.Expr):
            tree.body[-1] = ast.copy_location(
                ast.Assign([ast.Name("_", ast.Store())], tree.body[-1].value, lineno=1), tree.body[-1]
            )
        compiled = compile(ast.fix_missing_locations(tree), "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        async with asyncio.timeout(30):
            found = eval(compiled, names)  # noqa: S307 - it is the page's own code
            if inspect.isawaitable(found):
                await found
    return names


async def test_the_script(world: tuple[Stack, str], tmp_path: Path) -> None:
    """A tool of the script is called, and both answers are printed."""
    (tmp_path / "README.md").write_text(PAGE, encoding="utf-8")
    (code,) = examples("In a script")
    output = await printed(filled(code, world, "script"), tmp_path)
    assert output == f"Let me look.\n\nIt has {WORDS} words.\nAnd what may you do with it?"


async def test_the_script_asks_before_the_agent_may(world: tuple[Stack, str], tmp_path: Path) -> None:
    (code,) = examples("In a script")
    code = filled(code, world, "asking").replace("How many words has README.md?", "Delete README.md")
    code = code.replace('input(f"{approval.message} [y/n] ")', '(print(approval.message), "y")[1]')
    output = await printed(code, tmp_path)
    assert output == "Delete README.md?\nallow_once by user-1\nAnd what may you do with it?"


async def test_the_notebook(world: tuple[Stack, str], capsys: pytest.CaptureFixture[str]) -> None:
    codes = [filled(code, world, "notebook") for code in examples("In a notebook")]
    names = await cells(codes[:2], {})
    assert names["_"] == "What is a cursor?"
    await cells(codes[2:4], names)
    assert capsys.readouterr().out == "Say it in other words."
    assert [role for role, _ in names["_"]] == ["user", "assistant"] * 2
    await cells(codes[4:], names)
    assert names["client"].status == "stopped"


async def test_the_program(world: tuple[Stack, str], tmp_path: Path) -> None:
    (code,) = examples("With asyncio")
    output = await printed(filled(code, world, "program"), tmp_path)
    assert output == "What is a cursor?\nSay it in other words.success And in one word?\n"


async def test_the_pieces(world: tuple[Stack, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that go on from a session: reading, tools, offline, saving."""
    monkeypatch.chdir(tmp_path)
    stack, url = world
    async with Client(url, stack.token()) as client:
        session = client.session("pieces")
        assert await session.answer("hello") == "hello"
        watching, changing = (filled(code, world, "pieces") for code in examples("Reading"))
        names: dict[str, Any] = {**vars(antiphon_client), "client": client, "session": session, "stored": None}
        await session.close()
        # it is endless by nature: a last line leaves it
        await cells([watching.rstrip().replace('print("-- live --")', "break")], names)
        await cells([changing], names)
        assert names["view"].messages[-1].text == "hello"
        await names["session"].close()
        await cells([filled(code, world, "pieces") for code in examples("Tools")], names)
        assert names["pick_file"].parameters["required"] == ["kind"]
        names["session"].follow()
        await cells([filled(code, world, "pieces") for code in examples("From one process to the next")], names)
        assert names["session"].save()["session"] == "pieces"
    await cells([filled(code, world, "pieces") for code in examples("Offline")], names)
    assert names["receipt"].input_id == names["submission"].input_id


async def test_the_page_names_what_the_facade_adds() -> None:
    told = PAGE.partition("## What the facade adds")[2].partition("\n## ")[0]
    for name in ("open", "close", "pieces"):
        assert f"{name}(" in told
        assert any(hasattr(cls, name) for cls in (sync.Client, sync.Answer))
