"""The composition root of the process that sends webhooks."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import structlog

from antiphon.processes import (
    BrokerSettings,
    collecting_rubbish,
    settle_memory,
    spans_of,
    stop_signals,
    wait_for_log,
    watching_the_loop,
)
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.outbox import JetStreamOutbox, JetStreamPartitions
from broker.jetstream.presence import NatsPresence
from broker.jetstream.vitals import JetStreamVitals
from webhooks.config import WebhookSettings
from webhooks.metrics import WebhookMetrics
from webhooks.service import Webhooks, WebhookServices
from webhooks.source import EndpointFile

_log = structlog.get_logger("antiphon.webhooks")


@asynccontextmanager
async def running_webhooks(broker: BrokerSettings, settings: WebhookSettings) -> AsyncIterator[EndpointFile]:
    """Sends webhooks, once NATS and its streams are there. Raises EndpointsInvalid before anything is opened."""
    metrics = WebhookMetrics()
    file = EndpointFile(settings.webhook_file, settings.webhook_reload_s, metrics)
    name = f"wh-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(spans_of(broker.trace, "antiphon-webhooks", name, metrics.registry))
        connection = Connection(broker.nats, name=name, metrics=metrics.log)
        if settings.webhook_port:
            from antiphon.scraping import serving_metrics

            vitals = await stack.enter_async_context(JetStreamVitals(connection))
            await stack.enter_async_context(serving_metrics(metrics, vitals, settings.webhook_port))
            await stack.enter_async_context(watching_the_loop(metrics.process))
        await stack.enter_async_context(connection)
        await stack.enter_async_context(collecting_rubbish())
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        presence = await stack.enter_async_context(NatsPresence(connection))
        outbox = JetStreamOutbox(connection, name, lease_s=settings.webhook_lease_s, keep_s=settings.webhook_keep_s)

        async def send() -> None:
            # Of this task and those that it starts: in `antiphon dev` the process is the gateway's.
            structlog.contextvars.bind_contextvars(process=name)
            await wait_for_log(connection, log)
            async with JetStreamPartitions(connection, log.partitions) as partitions:
                services = WebhookServices(outbox, partitions, log, presence, file, settings, metrics, spans)
                await Webhooks(services).run()

        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        sending = tasks.create_task(send())
        stack.callback(sending.cancel)
        yield file


async def run_webhooks(broker: BrokerSettings, settings: WebhookSettings) -> None:
    """Sends until SIGTERM or SIGINT. SIGHUP has the file of endpoints read again."""
    async with running_webhooks(broker, settings) as file:
        settle_memory()
        print("ready webhooks", flush=True)
        with stop_signals() as stop, _on_hangup(file):
            await stop.wait()
        _log.info("leaving")


@contextmanager
def _on_hangup(file: EndpointFile) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, file.look)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
