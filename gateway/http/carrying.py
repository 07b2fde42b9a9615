"""Carrying out commands for HTTP: by the same parsing, checks and receipts as those of a WebSocket."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from broker.tools import ToolDeclaration, parse_tools
from gateway import protocol
from gateway.auth import Identity
from gateway.commands import Executor
from gateway.execution import refusing
from gateway.protocol import Subscribe
from gateway.services import Services


class Claimant(Executor):
    """Who claims a call over HTTP: to claim it is to declare the tool, whatever its name is."""

    def tool(self, name: str) -> ToolDeclaration | None:
        return replace(self.tools[0], name=name)


def within(services: Services, what: str) -> AbstractAsyncContextManager[None]:
    """Where something is carried out that may be refused."""
    return refusing(services.settings.command_timeout_s, f"r-{secrets.token_hex(5)}", what)


async def carry_out(services: Services, op: str, fields: Mapping[str, Any], who: Identity) -> dict[str, Any]:
    """What the command's `ok` carries. Raises Refused."""
    command = protocol.parse_command({**fields, "op": op, "id": 0})
    assert not isinstance(command, protocol.ConnectionCommand)
    tool = fields.get("tool") or {}
    declared = parse_tools([{**tool, "name": "tool"}])
    executor = Claimant(fields.get("device"), tuple(declared.values()))
    async with within(services, type(command).__name__):
        return await services.commands.carry_out(command, who, executor)


def subscription(fields: Mapping[str, Any]) -> Subscribe:
    """The subscription that the fields ask for. Raises Refused."""
    command = protocol.parse_command({**fields, "op": "subscribe", "id": 0})
    assert isinstance(command, Subscribe)
    return command
