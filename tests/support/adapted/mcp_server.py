"""An MCP server of tests: `python -m tests.support.adapted.mcp_server [PORT]`, over stdio without a port."""

from __future__ import annotations

import sys

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("tests", log_level="ERROR")


class Size(BaseModel):
    """What `order` asks."""

    size: str


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def delete(file: str) -> str:
    """Deletes a file."""
    return f'{{"deleted":"{file}"}}'


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def order(what: str, ctx: Context) -> str:
    """Asks for a size in the middle of the call."""
    answer = await ctx.elicit(f"Which size of {what}?", Size)
    return f"{answer.action} {getattr(answer, 'data', None)}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
