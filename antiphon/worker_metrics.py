"""/metrics and /healthz of a worker, for those who ask for them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from antiphon.listening import serving
from broker.versions import VERSION, formats


def serving_metrics(registry: CollectorRegistry, port: int) -> AbstractAsyncContextManager[str]:
    """Serves them on all addresses, so that they can be scraped."""
    return serving(_metrics_app(registry), "0.0.0.0", port)  # noqa: S104 (for scraping)


def _metrics_app(registry: CollectorRegistry) -> web.Application:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": VERSION, "formats": formats()})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app
