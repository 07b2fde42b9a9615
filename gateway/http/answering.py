"""What the operations of the HTTP API have in common in answering."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from aiohttp import web

from broker.errors import ErrorCode, Refused
from gateway.http.declarations import JSON
from gateway.http.requests import Call
from gateway.http.streams import Connected

Admit = Callable[[Connected], AbstractContextManager[bool]]
"""Counts somebody among the connected for as long as the context is open; gives whether the log is available. Raises
Problem (draining, overloaded)."""


def json_answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """What a token gives is nobody else's: no cache keeps it, unless `headers` say so."""
    return web.Response(
        body=body, status=status, headers={"Content-Type": JSON, "Cache-Control": "no-store", **(headers or {})}
    )


def input_id_of(call: Call, fields: Mapping[str, Any] | None = None) -> str:
    """`inputId`, or Idempotency-Key, or one that is made here. Raises Refused if they differ.

    `fields` are those of a part of the request, which the header is not about.
    """
    key = call.extra.get("Idempotency-Key") if fields is None else None
    input_id = (call.fields if fields is None else fields).get("inputId")
    if key is not None and input_id not in (None, key):
        text = "`inputId` and Idempotency-Key must be the same, if both are there"
        raise Refused(ErrorCode.BAD_COMMAND, text, field="inputId")
    return str(input_id or key or secrets.token_hex(16))
