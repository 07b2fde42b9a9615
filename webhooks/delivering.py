"""From the outbox to one endpoint: sends what waits, again and again until it is taken, refused for good, or too old."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import structlog

from broker.errors import CodecError
from broker.outbox import Kept, Outbox, Term
from broker.spans import Span, Spans, child_of, now_ns
from webhooks.audience import Audience
from webhooks.backlog import Backlog, Waiting
from webhooks.config import WebhookSettings
from webhooks.due import away, decode
from webhooks.endpoints import Endpoint
from webhooks.errors import TermOver
from webhooks.leading import once, patiently
from webhooks.metrics import WebhookMetrics
from webhooks.notices import WITHDRAWALS
from webhooks.payload import body_of
from webhooks.retrying import backoff_s
from webhooks.sending import Outcome, Sender

_log = structlog.get_logger("antiphon.webhooks")

_POLL_S = 5.0
"""Seconds until an endpoint's part of the outbox is read again of which nothing was heard: an operator may have put
something there."""
_STALE_WAIT_S, _STALE_S = 0.02, 2.0
"""How long a replica of the outbox may not have what was put there a moment ago, until that is left to the poll."""
_PROBE_S = 30.0
"""Seconds, at most, until an endpoint that is down is tried with another event."""


@dataclass(frozen=True, slots=True)
class Means:
    """What couriers share."""

    term: Term
    outbox: Outbox
    audience: Audience
    settings: WebhookSettings
    metrics: WebhookMetrics
    spans: Spans
    marked: Callable[[], Sequence[int]]
    """Up to where events may be sent, by partition."""
    refused: Callable[[Endpoint], None]
    """The endpoint has said that it is gone."""


class Courier:
    """Sends to one endpoint, for one term. `endpoint` may be replaced by what the file says of it now."""

    def __init__(self, endpoint: Endpoint, means: Means, *, gone: bool) -> None:
        self.endpoint = endpoint
        self.gone = gone
        self._means = means
        self._metrics = means.metrics
        self._backlog = Backlog(self._in_flight)
        self._seen = 0
        self._expected = 0
        self._expected_until = 0.0
        self._more = True
        self._wake = asyncio.Event()

    @property
    def _in_flight(self) -> int:
        return self.endpoint.in_flight or self._means.settings.webhook_in_flight

    @property
    def _age_s(self) -> float:
        return self.endpoint.age_s or self._means.settings.webhook_age_s

    def expect(self, place: int) -> None:
        """Something that may be sent waits at this place of the outbox."""
        self._expected = max(self._expected, place)
        self._expected_until = time.monotonic() + _STALE_S
        self.wake()

    def wake(self) -> None:
        self._more = True
        self._wake.set()

    def forget(self, session: str) -> None:
        self._backlog.forget(session)

    def sample(self) -> None:
        """Says what waits, to the metrics."""
        oldest = self._backlog.oldest_ts
        self._metrics.backlog.labels(self.endpoint.id).set(len(self._backlog))
        age_s = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)
        self._metrics.oldest.labels(self.endpoint.id).set(age_s)
        self._metrics.disabled.labels(self.endpoint.id).set(self.gone)

    async def run(self) -> None:
        """Raises TermOver."""
        self._metrics.know(self.endpoint.id)
        async with Sender(self._means.settings.networks) as sender, asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                self._backlog.in_flight = self._in_flight
                if self._more:
                    await self._fill()
                while (waiting := self._backlog.take(time.monotonic())) is not None:
                    tasks.create_task(self._deliver(sender, waiting))
                await self._rest()

    async def _fill(self) -> None:
        """Takes from the outbox what there is room for."""
        while len(self._backlog) < self._means.settings.webhook_backlog:
            page, end = await patiently(
                self._means.term, lambda: self._means.outbox.waiting(self.endpoint.id, self._seen)
            )
            for kept in page:
                if not self._may_take(kept):
                    self._more = False
                    return
                self._seen = kept.place
            if end:
                self._more = False
                return

    def _may_take(self, kept: Kept) -> bool:
        """Takes one, unless it is beyond the mark: then who put it there may have died before it counted."""
        try:
            due = decode(kept.body)
        except CodecError as error:
            _log.error("an event in the outbox cannot be read; it is left there", place=kept.place, reason=str(error))
            return True
        if not due.again and due.at > self._means.marked()[due.partition]:
            return False
        self._backlog.add(Waiting(due, kept.place))
        if not self.gone:
            self._means.audience.expect(due.session)
        return True

    async def _rest(self) -> None:
        now = time.monotonic()
        wait_s = _POLL_S
        if (due_at := self._backlog.due_at()) is not None:
            wait_s = min(wait_s, max(0.0, due_at - now))
        if self._seen < self._expected and now < self._expected_until:
            wait_s, self._more = min(wait_s, _STALE_WAIT_S), True
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            self._more = self._more or wait_s == _POLL_S

    # --- one event -----------------------------------------------------------------------------------------------------

    async def _deliver(self, sender: Sender, waiting: Waiting) -> None:
        try:
            if self.gone:
                await self._give_up(waiting, Outcome("refused", 410))
            elif await self._is_needless(waiting):
                self._metrics.skipped.labels(self.endpoint.id).inc()
                await self._settle(waiting, reached=False)
            else:
                await self._send(sender, waiting)
        finally:
            self.wake()

    async def _is_needless(self, waiting: Waiting) -> bool:
        """Somebody who is meant watches, and the endpoint wants to know only if nobody does. Makes the body, else."""
        if waiting.body is not None:
            return False
        present = await self._means.audience.present(waiting.due.session)
        if self.endpoint.when == "away" and waiting.due.type not in WITHDRAWALS and not away(waiting.due, present):
            return True
        waiting.body = body_of(waiting.due, present)
        return False

    async def _send(self, sender: Sender, waiting: Waiting) -> None:
        outcome = await self._request(sender, waiting)
        if outcome.reason is None:
            self._metrics.delivered.labels(self.endpoint.id).inc()
            self._metrics.delay.observe(max(0.0, time.time() - waiting.due.ts / 1000))
            await self._settle(waiting, reached=True)
            return
        waiting.tries += 1
        self._metrics.failures.labels(self.endpoint.id, outcome.reason).inc()
        if outcome.gone and not self.gone:
            await self._say_gone()
        age_s = time.time() - waiting.due.ts / 1000
        tries_max = self.endpoint.tries or self._means.settings.webhook_tries
        if not self._backlog.holds(waiting):
            # Its session was deleted meanwhile, and nothing of that is kept.
            await self._settle(waiting, reached=False)
        elif outcome.gone or waiting.tries >= tries_max or age_s > self._age_s:
            await self._give_up(waiting, outcome)
        else:
            self._try_later(waiting, outcome)

    async def _request(self, sender: Sender, waiting: Waiting) -> Outcome:
        if not self._means.term.valid:
            raise TermOver("the lease has run out")
        assert waiting.body is not None
        if waiting.tries:
            self._metrics.retries.labels(self.endpoint.id).inc()
        endpoint, due, spans = self.endpoint, waiting.due, self._means.spans
        context, begun = child_of(due.trace, spans), now_ns()
        timeout_s = endpoint.timeout_s or self._means.settings.webhook_timeout_s
        outcome = await sender.post(endpoint, due.id, waiting.body, timeout_s, context.headers)
        ended = now_ns()
        self._metrics.request.labels(endpoint.id).observe((ended - begun) / 1e9)
        if spans.enabled:
            attributes: dict[str, str | int | bool] = {
                "antiphon.session": due.session,
                "antiphon.endpoint": endpoint.id,
            }
            attributes |= {"antiphon.webhook.id": due.id, "antiphon.webhook.try": waiting.tries + 1}
            if outcome.status is not None:
                attributes["http.response.status_code"] = outcome.status
            span = Span(f"webhook {due.type}", context, due.trace, begun, ended, "client", attributes)
            spans.ended(span if outcome.reason is None else _failed(span, outcome.reason))
        return outcome

    def _try_later(self, waiting: Waiting, outcome: Outcome) -> None:
        settings, now = self._means.settings, time.monotonic()
        shortest_s, longest_s = settings.webhook_retry_min_s, settings.webhook_retry_max_s
        wait_s, pause_s = backoff_s(waiting.tries, shortest_s, longest_s, random.random()), 0.0
        if outcome.retry_after_s is not None:
            # It speaks for the endpoint, and not of this event.
            pause_s = wait_s = min(max(wait_s, outcome.retry_after_s), self._age_s)
        elif self._backlog.failures:
            pause_s = backoff_s(self._backlog.failures, shortest_s, min(longest_s, _PROBE_S), random.random())
        was_down = self._backlog.down
        self._backlog.failed(waiting, now + wait_s, now + pause_s)
        if self._backlog.down and not was_down:
            _log.warning("an endpoint is down", endpoint=self.endpoint.id, reason=outcome.reason, status=outcome.status)

    async def _give_up(self, waiting: Waiting, outcome: Outcome) -> None:
        due = waiting.due
        said = {"due": orjson.loads(due.encode()), "tries": waiting.tries, "reason": outcome.reason}
        body = orjson.dumps(said | {"status": outcome.status, "givenUpAt": int(time.time() * 1000)})
        kept = Kept(waiting.place, due.endpoint, due.session, due.id, b"")
        await once(self._means.term, lambda: self._means.term.give_up(kept, body))
        self._metrics.given_up.labels(self.endpoint.id).inc()
        _log.warning(
            "an event was given up",
            endpoint=self.endpoint.id,
            session=due.session,
            id=due.id,
            type=due.type,
            tries=waiting.tries,
            reason=outcome.reason,
            status=outcome.status,
        )
        self._backlog.done(waiting, reached=False)

    async def _say_gone(self) -> None:
        self.gone = True
        _log.warning("an endpoint is gone (410) and is sent nothing more", endpoint=self.endpoint.id)
        self._means.refused(self.endpoint)
        body = self.endpoint.fingerprint.encode()
        await patiently(self._means.term, lambda: self._means.term.refuse(self.endpoint.id, body))

    async def _settle(self, waiting: Waiting, *, reached: bool) -> None:
        if reached and self._backlog.down:
            _log.info("an endpoint is up again", endpoint=self.endpoint.id)
        await patiently(self._means.term, lambda: self._means.term.settle(waiting.place))
        self._backlog.done(waiting, reached=reached)


def _failed(span: Span, reason: str) -> Span:
    return Span(
        span.name, span.context, span.parent, span.start_ns, span.end_ns, span.kind, span.attributes, (), reason
    )
