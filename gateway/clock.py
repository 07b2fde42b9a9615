"""The gateway's part in sending scheduled inputs: hears alarms, and looks after the sessions that are open here (ADR 41)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from broker.clock import now_ms
from broker.errors import InvalidName, LogError
from broker.interfaces import Alarms, AlarmSource, DueAlarm
from broker.subjects import AlarmPlace
from gateway.commands import Commands
from gateway.commands.scheduling import Due, Outcome, alarm_of
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics

_log = structlog.get_logger("antiphon.schedule")

_WAIT_S = 5.0
_AWAY_WAIT_S = 0.5
_AFTER_FAULT_S = 5.0
_FAULTS_MAX = 10
"""Deliveries of an alarm, after which one that this gateway fails at is not heard again."""
_SHORT_S = 5.0
"""A wait that the consumer of alarms keeps itself; for a longer one the alarm is set anew, and holds no place there."""


class Clock:
    """One for a gateway; a context."""

    def __init__(
        self,
        hub: Hub,
        commands: Commands,
        alarms: Alarms,
        source: AlarmSource,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
    ) -> None:
        self._hub = hub
        self._commands = commands
        self._alarms = alarms
        self._source = source
        self._settings = settings
        self._metrics = metrics
        self._room = asyncio.Semaphore(settings.schedule_at_once)
        self._assured: dict[AlarmPlace, int] = {}
        """Alarms of open sessions that are known to be set, and for when."""
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._running = [self._tasks.create_task(work, name="clock") for work in (self._hear(), self._look())]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    # --- alarms --------------------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Takes alarms for as long as there is room to deal with them."""
        async with asyncio.TaskGroup() as dealing:
            while True:
                await self._room.acquire()
                alarm = None
                try:
                    alarm = await self._source.take(_WAIT_S)
                except LogError as error:
                    _log.debug("no alarms can be heard", reason=str(error))
                    await asyncio.sleep(_AWAY_WAIT_S)
                finally:
                    if alarm is None:
                        self._room.release()
                if alarm is not None:
                    dealing.create_task(self._deal_with(alarm))

    async def _deal_with(self, alarm: DueAlarm) -> None:
        try:
            async with asyncio.timeout(self._settings.command_timeout_s):
                await self._settle(alarm, await self._make_due(alarm))
        except (LogError, TimeoutError):
            return  # it comes again when its lease is over
        except Exception:  # noqa: BLE001 (a fault in one session must not keep others from being served)
            _log.exception("a scheduled input could not be sent", session=alarm.place.session)
            if alarm.delivery >= _FAULTS_MAX:
                with suppress(LogError):
                    await alarm.done()
        finally:
            self._room.release()

    async def _make_due(self, alarm: DueAlarm) -> Due:
        try:
            return await self._commands.make_due(alarm.place, alarm.delivery)
        except InvalidName:
            return Due(Outcome.VOID)  # no session has such a name

    async def _settle(self, alarm: DueAlarm, due: Due) -> None:
        self._count(due)
        if due.again_s is None:
            await alarm.done()
        elif due.again_s <= _SHORT_S:
            await alarm.again(due.again_s)
        else:
            await self._alarms.set(alarm.place, now_ms() + int(due.again_s * 1000))
            await alarm.done()

    def _count(self, due: Due) -> None:
        self._metrics.scheduled.labels(due.outcome.value).inc()
        if due.late_s is not None:
            self._metrics.schedule_late.observe(due.late_s)

    # --- what alarms may have missed --------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Of the sessions that are open here: sets alarms that are not there, and sends what nobody was told of."""
        while True:
            await asyncio.sleep(self._settings.job_repair_s)
            feeds = [feed for feed in self._hub.feeds() if feed.is_caught_up and feed.state.scheduled]
            open_ = {alarm_of(feed, planned.input_id) for feed in feeds for planned in feed.state.scheduled}
            self._assured = {place: at for place, at in self._assured.items() if place in open_}
            for feed in feeds:
                try:
                    async with asyncio.timeout(self._settings.command_timeout_s):
                        await self._look_at(feed)
                except (LogError, TimeoutError):
                    break  # NATS is away: next time
                except Exception:  # noqa: BLE001 (as above)
                    _log.exception("what is scheduled could not be looked at", session=feed.subjects.key)
                    await asyncio.sleep(_AFTER_FAULT_S)

    async def _look_at(self, feed: Feed) -> None:
        late_ms = now_ms() - int(self._settings.job_repair_s * 1000)
        for planned in feed.state.scheduled:
            place = alarm_of(feed, planned.input_id)
            if planned.at <= late_ms:
                self._count(await self._commands.make_due(place, 1))
            elif place not in self._assured:
                if not await self._alarms.is_set(place):
                    await self._alarms.set(place, planned.at)
                self._assured[place] = planned.at
