"""/metrics and /healthz of a worker, for those who ask for them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from aiohttp import web

from agent_worker.metrics import WorkerMetrics
from antiphon.listening import serving
from broker.interfaces import Vitals
from broker.metrics import CONTENT_TYPE, exposition
from broker.versions import VERSION, formats


def serving_metrics(metrics: WorkerMetrics, vitals: Vitals, port: int) -> AbstractAsyncContextManager[str]:
    """Serves them on all addresses, so that they can be scraped."""
    return serving(_metrics_app(metrics, vitals), "0.0.0.0", port)  # noqa: S104 (for scraping)


def _metrics_app(counted: WorkerMetrics, vitals: Vitals) -> web.Application:
    async def metrics(_request: web.Request) -> web.Response:
        await vitals.refresh()
        counted.sample()
        return web.Response(body=exposition(counted.registry), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": VERSION, "formats": formats()})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app
