"""A model with the tools of an MCP server: over HTTP, and over stdio."""

from __future__ import annotations

import os
import sys

from agent_worker.adapters import mcp, openai_compatible
from tests.support.adapted.models import MODEL_URL, RETRIES, breaks, pick_file

MCP_PORT = "ANTIPHON_TEST_MCP_PORT"
"""The variable that names the port of the MCP server."""
_URL = os.environ.get(MODEL_URL, "http://127.0.0.1:9")
_PORT = os.environ.get(MCP_PORT, "9")
_STDIO = [sys.executable, "-m", "tests.support.adapted.mcp_server"]

over_http = openai_compatible.agent(
    "scripted",
    base_url=f"{_URL}/v1",
    api_key="k",
    tools=[mcp.tools(url=f"http://127.0.0.1:{_PORT}/mcp"), breaks, pick_file],
    retries=RETRIES,
)
over_stdio = openai_compatible.agent(
    "scripted",
    base_url=f"{_URL}/v1",
    api_key="k",
    tools=[
        mcp.tools(
            command=_STDIO, env=dict(os.environ), only=["add", "order"], prefix="my.", ask="never", protocol="legacy"
        )
    ],
)
