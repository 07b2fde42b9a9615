"""docs/HTTP.md is true: its lines for a shell run as they are, its tables are those of the code."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.errors import ErrorCode
from gateway.http.operations import OPERATIONS
from gateway.http.problems import CONFLICT, STATUS, HttpCode
from tests.support.nats import NatsNode
from tests.support.stack import Process, Stack

PAGE = Path(__file__).parents[2] / "docs" / "HTTP.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS: list[str] = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_table_of_operations_is_that_of_the_code() -> None:
    told = re.findall(r"^\| `([A-Z]+) (/\S+)` \| .* \| ([\d, ]+).*\|$", TEXT, re.MULTILINE)
    assert {(method, path) for method, path, _ in told} == {(o.method, o.path) for o in OPERATIONS}
    for method, path, statuses in told:
        (operation,) = (o for o in OPERATIONS if (o.method, o.path) == (method, path))
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{method} {path}` |"))
        assert {int(n) for n in re.findall(r"\b[23]\d\d\b", row.rsplit("|", 2)[1])} == set(operation.answers), statuses


def test_the_table_of_statuses_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (`.*`) \|$", TEXT, re.MULTILINE)
    told = {
        (code, int(status))
        for statuses, codes in rows
        for code, status in zip(
            re.findall(r"`(\w+)`", codes),
            statuses.split(", ") if ", " in statuses else [statuses] * len(codes),
            strict=False,
        )
    }
    assert told == {(str(code), status) for code, status in STATUS.items()}
    assert all(STATUS.get(code, CONFLICT) for code in (*ErrorCode, *HttpCode))


@pytest.fixture
async def gateway(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[tuple[Process, str]]:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        (gateway,) = await stack.start(1)
        yield gateway, stack.token()


async def test_the_lines_for_a_shell_run_as_they_are(gateway: tuple[Process, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    assert len(COMMANDS) > 5
    answers = [await shell(command, *gateway) for command in COMMANDS]
    assert '"text":"hello there"' in answers[0]
    assert "retry: 1000" in next(a for c, a in zip(COMMANDS, answers, strict=True) if "| head" in c)
    streamed = next(a for c, a in zip(COMMANDS, answers, strict=True) if '"stream":"text"' in c)
    assert "event: text\n" in streamed
    assert streamed.count("event: run\n") == 1


async def shell(command: str, gateway: Process, token: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-c", command),
        env=os.environ | {"URL": gateway.url, "TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (command, out, err)
    return out.decode()
