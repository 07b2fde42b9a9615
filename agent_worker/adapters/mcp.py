"""Tools of an MCP server for any agent that takes tools, with permissions. Needs the extra `mcp`.

::

    files = mcp.tools(command=["uvx", "mcp-server-files", "/srv/docs"])
    agent = openai_compatible.agent("gpt-5-mini", tools=[files])
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from agent_worker.adapters.declaring import Tool
from agent_worker.adapters.toolbox import first_of
from agent_worker.approvals import Permission
from agent_worker.context import SessionContext
from agent_worker.errors import ModelFailed, NoAnswer
from agent_worker.tools import Invocation
from broker.errors import AntiphonError, RunErrorCode

PAGES_MAX = 50
"""Pages of a server's list of tools that are read."""
NAME_CHARS = 64
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")

Ask = Literal["unless_read_only", "always", "never"]


def tools(
    *,
    url: str | None = None,
    command: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    ask: Ask = "unless_read_only",
    permission: Permission | None = None,
    only: Collection[str] | None = None,
    prefix: str = "",
    connect_s: float = 20.0,
    call_s: float = 300.0,
    protocol: str = "auto",
) -> McpTools:
    """The tools of one server: at `url` (streamable HTTP, with `headers`), or a `command` (stdio, with `env`).

    `ask`: before which calls people are asked, as `permission` says. `unless_read_only` trusts what the server says of its
    tools (`readOnlyHint`): for a server that you do not trust it is `always`. `only` names the tools that are offered; their
    names are given to the model with `prefix`. A connection is made for each run, within `connect_s`; a call may take
    `call_s`. `protocol` is what is spoken: `auto` asks the server, `legacy` begins with `initialize` as MCP before 2026 does;
    some servers can ask in the middle of a call in that way alone. Raises ValueError.
    """
    if (url is None) == (not command):
        raise ValueError("an MCP server is either at a `url` or a `command`")
    names = None if only is None else frozenset(only)
    permit = permission or Permission()
    return McpTools(url, tuple(command), headers or {}, env, ask, permit, names, prefix, connect_s, call_s, protocol)


@dataclass(frozen=True, slots=True)
class McpTools:
    """A source of tools; made by `tools`."""

    url: str | None
    command: tuple[str, ...]
    headers: Mapping[str, str]
    env: Mapping[str, str] | None
    ask: Ask
    permission: Permission
    only: frozenset[str] | None
    prefix: str
    connect_s: float
    call_s: float
    protocol: str

    @asynccontextmanager
    async def tools(self, ctx: SessionContext) -> AsyncIterator[list[Tool]]:
        """Connected for one run. Raises ModelFailed (model_unavailable) if the server cannot be reached."""
        connected = False
        try:
            async with self._connected(ctx) as found:
                connected = True
                yield found
        except (AntiphonError, GeneratorExit):
            raise
        except Exception as error:
            # Whatever is raised within comes out of the client's task groups as a group.
            cause = first_of(error) if isinstance(error, BaseExceptionGroup) else error
            if connected or isinstance(cause, AntiphonError):
                raise cause from None
            text = f"an MCP server cannot be reached ({type(cause).__name__})"
            raise ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, text) from error

    @asynccontextmanager
    async def _connected(self, ctx: SessionContext) -> AsyncIterator[list[Tool]]:
        import httpx2
        from mcp.client.client import Client
        from mcp.client.stdio import StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client

        async with AsyncExitStack() as stack:
            if self.url is not None:
                sent = {**ctx.trace.headers, **self.headers}
                timeout = httpx2.Timeout(self.connect_s, read=self.call_s)
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=sent, timeout=timeout))
                transport = streamable_http_client(self.url, http_client=http)
            else:
                environment = None if self.env is None else dict(self.env)
                program, *args = self.command
                transport = stdio_client(StdioServerParameters(command=program, args=args, env=environment))
            asking, call_s = _asking(ctx), self.call_s
            made = Client(transport, mode=self.protocol, elicitation_callback=asking, read_timeout_seconds=call_s)
            async with asyncio.timeout(self.connect_s):
                client = await stack.enter_async_context(made)
                found = await self._listed(client)
            yield found

    async def _listed(self, client: Any) -> list[Tool]:
        found: list[Tool] = []
        cursor = None
        for _ in range(PAGES_MAX):
            page = await client.list_tools(cursor=cursor)
            found += [self._tool(client, each) for each in page.tools if self.only is None or each.name in self.only]
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    def _tool(self, client: Any, told: Any) -> Tool:
        hints = told.annotations
        read_only = bool(hints and hints.read_only_hint)
        asks = self.ask == "always" or (self.ask == "unless_read_only" and not read_only)

        async def call(invocation: Invocation) -> Any:
            meta = {"antiphon/idempotencyKey": invocation.idempotency_key}
            return _result(await client.call_tool(told.name, dict(invocation.args), meta=meta))

        return Tool(
            _UNFIT.sub("_", self.prefix + told.name)[:NAME_CHARS],
            call,
            told.description or told.title or "",
            dict(told.input_schema),
            idempotent=read_only or bool(hints and hints.idempotent_hint),
            needs_permission=self.permission if asks else False,
        )


def _result(told: Any) -> Any:
    """What a tool gave back. What the server says of an error is for the model to read."""
    texts = [part.text if part.type == "text" else f"[{part.type}]" for part in told.content]
    if told.is_error:
        return {"error": "\n".join(texts)}
    return "\n".join(texts) if texts else told.structured_content


def _asking(ctx: SessionContext) -> Any:
    """What a server asks in the middle of a call (elicitation) is a question for the people of the session."""

    async def ask(_: Any, params: Any) -> Any:
        from mcp_types import ElicitResult

        schema = getattr(params, "requested_schema", None)
        if schema is None:
            return ElicitResult(action="decline")
        try:
            return ElicitResult(action="accept", content=await ctx.ask_user(params.message, schema))
        except NoAnswer as error:
            return ElicitResult(action="decline" if error.code == "declined" else "cancel")

    return ask
