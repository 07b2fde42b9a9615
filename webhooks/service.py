"""The process that sends webhooks: one at a time is the sender, others stand by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from broker.errors import LogError
from broker.interfaces import Presence, SessionLog
from broker.outbox import Outbox, Partitions, Term
from broker.spans import Spans
from webhooks.audience import Audience
from webhooks.config import WebhookSettings
from webhooks.delivering import Courier, Means
from webhooks.endpoints import Endpoint
from webhooks.errors import TermOver
from webhooks.leading import patiently, renewing
from webhooks.metrics import WebhookMetrics
from webhooks.source import EndpointFile
from webhooks.telling import Listening, Teller

_log = structlog.get_logger("antiphon.webhooks")

_REFUSED_S = 5.0
"""Seconds between looks at which endpoints are to be sent nothing."""
_AGAIN_S = 0.5
"""Seconds until this process tries to be the sender again, after a term that ended."""


@dataclass(frozen=True, slots=True)
class WebhookServices:
    """What the process has at hand."""

    outbox: Outbox
    partitions: Partitions
    log: SessionLog
    presence: Presence
    file: EndpointFile
    settings: WebhookSettings
    metrics: WebhookMetrics
    spans: Spans


class Webhooks:
    """`run` sends webhooks while no other process does, until it is cancelled."""

    def __init__(self, services: WebhookServices) -> None:
        self._services = services

    async def run(self) -> None:
        metrics = self._services.metrics
        while True:
            async with self._services.outbox.term() as term:
                try:
                    await _Term(self._services, term).run()
                except* (TermOver, LogError) as ended:
                    _log.warning("this process sends no webhooks any more", reason=str(_first(ended)))
                finally:
                    metrics.leading.set(0)
                    metrics.on_sample = lambda: None
            await asyncio.sleep(_AGAIN_S)


class _Term:
    """The time in which this process is the sender: reads the log, and has a courier for each endpoint."""

    def __init__(self, services: WebhookServices, term: Term) -> None:
        self._services = services
        self._term = term
        self._endpoints: dict[str, Endpoint] = {}
        self._couriers: dict[str, tuple[Courier, asyncio.Task[None]]] = {}
        self._audience = Audience(services.presence, services.log)
        self._gone: dict[str, str] = {}
        self._refusals_stored: set[str] = set()
        self._told: dict[str, Endpoint] = {}
        listening = Listening(lambda: self._told, self._expect, self._forget)
        self._teller = Teller(
            *(term, services.outbox, services.partitions, services.log),
            listening,
            services.settings,
            services.metrics,
        )

    async def run(self) -> None:
        """Raises TermOver, in a group."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(renewing(self._term, self._services.settings.webhook_lease_s))
            tasks.create_task(self._audience.run())
            self._gone = await self._refused()
            self._refusals_stored = set(self._gone)
            self._know(self._services.file.endpoints)
            await self._teller.begin()
            self._services.metrics.leading.set(1)
            _log.info("this process sends webhooks from now on")
            self._services.metrics.on_sample = self._sample
            self._reconcile(tasks.create_task)
            tasks.create_task(self._teller.run())
            tasks.create_task(self._watch_refused(tasks.create_task))
            async for endpoints in self._services.file.changes():
                self._know(endpoints)
                await self._teller.listen()
                self._reconcile(tasks.create_task)

    def _know(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        self._told = {id_: endpoint for id_, endpoint in self._endpoints.items() if not self._is_gone(endpoint)}

    def _is_gone(self, endpoint: Endpoint) -> bool:
        """It has said so at this URL."""
        return self._gone.get(endpoint.id) == endpoint.fingerprint

    async def _refused(self) -> dict[str, str]:
        found = await patiently(self._term, self._services.outbox.refused)
        return {id_: body.decode(errors="replace") for id_, body in found.items()}

    async def _watch_refused(self, start: Callable[..., asyncio.Task[None]]) -> None:
        """An operator may take back that an endpoint is gone."""
        while True:
            await asyncio.sleep(_REFUSED_S)
            gone = await self._refused()
            # What has just been found out is not in NATS yet: only what was taken back is news.
            if back := {id_ for id_ in self._refusals_stored - gone.keys() if id_ in self._gone}:
                self._gone = {id_: of for id_, of in self._gone.items() if id_ not in back}
                self._know(self._endpoints.values())
                await self._teller.listen()
                self._reconcile(start)
                _log.info("an endpoint is told again", endpoints=sorted(back))
            self._refusals_stored = set(gone)

    def _reconcile(self, start: Callable[..., asyncio.Task[None]]) -> None:
        """A courier for each endpoint that is enabled, and none for others: what waits for them goes on waiting."""
        wanted = {id_: endpoint for id_, endpoint in self._endpoints.items() if endpoint.enabled}
        for id_ in self._couriers.keys() - wanted.keys():
            _, task = self._couriers.pop(id_)
            task.cancel()
            self._services.metrics.forget(id_)
        means = Means(
            *(self._term, self._services.outbox, self._audience, self._services.settings),
            *(self._services.metrics, self._services.spans),
            lambda: self._teller.marked,
            self._note_gone,
        )
        for id_, endpoint in wanted.items():
            gone = self._is_gone(endpoint)
            if id_ in self._couriers:
                courier, _ = self._couriers[id_]
                courier.endpoint, courier.gone = endpoint, gone
                courier.wake()
            else:
                courier = Courier(endpoint, means, gone=gone)
                self._couriers[id_] = courier, start(courier.run())

    def _note_gone(self, endpoint: Endpoint) -> None:
        self._gone[endpoint.id] = endpoint.fingerprint
        self._know(self._endpoints.values())

    def _expect(self, endpoint: str, place: int) -> None:
        if endpoint in self._couriers:
            self._couriers[endpoint][0].expect(place)

    def _forget(self, session: str) -> None:
        for courier, _ in self._couriers.values():
            courier.forget(session)

    def _sample(self) -> None:
        self._services.metrics.lag.set(self._teller.lag_s)
        for courier, _ in self._couriers.values():
            courier.sample()


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
