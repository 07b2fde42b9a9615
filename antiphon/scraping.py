"""/metrics and /healthz of processes that serve nothing else, for those who ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry

from antiphon.listening import serving
from broker.interfaces import Vitals
from broker.metrics import CONTENT_TYPE, exposition
from broker.versions import VERSION, formats


class Counted(Protocol):
    """What a process counts."""

    @property
    def registry(self) -> CollectorRegistry: ...

    def sample(self) -> None:
        """Looks at what is going on. For who is about to expose the registry."""
        ...


def serving_metrics(
    metrics: Counted, vitals: Vitals, port: int, more: Callable[[], Mapping[str, Any]] = dict
) -> AbstractAsyncContextManager[str]:
    """Serves them on all addresses, so that they can be scraped. `more` is what /healthz says beside what all say."""
    return serving(_metrics_app(metrics, vitals, more), "0.0.0.0", port)  # noqa: S104 (for scraping)


def _metrics_app(counted: Counted, vitals: Vitals, more: Callable[[], Mapping[str, Any]]) -> web.Application:
    async def metrics(_request: web.Request) -> web.Response:
        await vitals.refresh()
        counted.sample()
        return web.Response(body=exposition(counted.registry), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": VERSION, "formats": formats(), **more()})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app
