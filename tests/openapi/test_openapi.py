"""The OpenAPI document: schemathesis sends a real gateway what it allows and what it forbids, and finds nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.support.nats import NatsNode
from tests.support.stack import Stack

HERE = Path(__file__).parent
EXAMPLES = 8
"""Requests of each kind, for each operation."""
SEED = 20_261_126
STREAMS = ("subscribe",)
"""Operations whose answer has no end."""


async def test_schemathesis_finds_nothing(tmp_path: Path, nats_server: NatsNode) -> None:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(
                stack.gateway(requests_per_second="100000", requests_burst="100000", run_wait_s="0.2")
            )
            tasks.create_task(stack.worker())
        gateway = starting.result()
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "schemathesis",
            *("--config-file", str(HERE / "schemathesis.toml"), "run"),
            f"{gateway.url}/openapi.json",
            *("--header", f"Authorization: Bearer {stack.token()}"),
            *(f"--exclude-operation-id={name}" for name in STREAMS),
            *("--checks", "all", "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--request-timeout", "10"),
            *("--workers", "1", "--no-color"),
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.openapi.hooks", "PYTHONPATH": str(Path.cwd())},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        text = output.decode()
        print(text)  # noqa: T201
        assert process.returncode == 0, text
        assert "Traceback" not in gateway.output()
