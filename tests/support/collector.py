"""An OpenTelemetry collector: takes spans as the protocol says (OTLP over HTTP, protobuf), and keeps them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came. Times are ns since 1970; `parent` is "" for one without."""

    name: str
    service: str
    instance: str
    trace_id: str
    span_id: str
    parent: str
    start_ns: int
    end_ns: int
    state: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    failed: bool


@dataclass(slots=True)
class Collector:
    """Where it listens, and what it has got. `hang` keeps every request from being answered."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: bytes = b""
    """All requests as they came, one after the other."""
    requests: int = 0
    hang: bool = False
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        if self.hang:
            await self._over.wait()
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {pair.key: _value(pair.value) for pair in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [_received(span, resource) for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    def end(self) -> None:
        self._over.set()

    def named(self, name: str, **attributes: Any) -> list[Received]:
        """The spans of a name with these attributes (of `antiphon.…`), in the order of their beginnings."""
        wanted = {f"antiphon.{key}": value for key, value in attributes.items()}
        found = [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]
        return sorted(found, key=lambda span: span.start_ns)


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        service=resource["service.name"],
        instance=resource["service.instance.id"],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        state=span.trace_state,
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        links=tuple(link.span_id.hex() for link in span.links),
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector on a free port."""
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    found.url = f"http://{host}:{port}"
    try:
        yield found
    finally:
        found.end()
        await runner.cleanup()
