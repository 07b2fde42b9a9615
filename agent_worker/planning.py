"""What an agent has sent to its session later: reminders, second looks, whatever is to begin at a time."""

from __future__ import annotations

from datetime import datetime

from agent_worker.errors import ScheduleRefused
from agent_worker.using_models import UsingModels
from broker.clock import in_ms, now_ms
from broker.errors import NotPermitted
from broker.events import InputScheduled, InputUnscheduled
from broker.session_config import ON_BUSY
from broker.state import ScheduledInput
from broker.subjects import AlarmPlace

AHEAD_S_MAX = 31_622_400
"""A leap year: how far ahead an agent may schedule."""


class Planning(UsingModels):
    """The part of a SessionContext that schedules inputs."""

    @property
    def scheduled(self) -> tuple[ScheduledInput, ...]:
        """What is scheduled in the session, by agents and by people, the next first."""
        return self._scope.state.scheduled

    async def schedule(
        self,
        content: str,
        *,
        at: datetime | None = None,
        after_s: float | None = None,
        mode: str | None = None,
        key: str | None = None,
    ) -> str:
        """Has `content` sent to this session, as an input of the agent's, at a time (of a time zone) or after so many
        seconds; returns the inputId, by which it can be taken back. A run begins with it then, whoever is there.

        After a crash the same is not scheduled twice; what was asked in the attempt before counts, its time too. Raises
        ScheduleRefused (`schedule_full`, `session_full`, `session_closed`, `not_permitted`), ValueError, ContentTooLarge.
        """
        await self._control.boundary()
        at_ms = _at(at, after_s)
        if not content:
            raise ValueError("content must not be empty")
        if mode is not None and mode not in ON_BUSY:
            raise ValueError(f"mode must be one of {', '.join(ON_BUSY)}")
        asked = [content, None if at is None else at.isoformat(), after_s, mode]
        input_id = self._call_ids.name("sch", asked, key)
        if input_id not in self._scope.state.seen:
            place = AlarmPlace(self._scope.subjects.key, self._scope.state.deleted_seq, input_id)
            # First, as gateways do: what the log says is scheduled has an alarm.
            try:
                await self._scope.services.alarms.set(place, at_ms)
            except NotPermitted:
                raise ScheduleRefused("not_permitted") from None
            self._scope.record(InputScheduled(input_id, content, at_ms, mode))
            await self._scope.stored()
        fate = self._scope.state.fate(input_id)
        if fate is not None and fate.status == "refused":
            raise ScheduleRefused(fate.code or "refused")
        return input_id

    async def unschedule(self, input_id: str) -> bool:
        """Takes back what is scheduled, the agent's own or somebody's; False if it is not scheduled (any more)."""
        await self._control.boundary()
        if self._scope.state.planned(input_id) is None:
            return False
        self._scope.record(InputUnscheduled(input_id))
        await self._scope.stored()
        # It may just have become due: the fold of our own record says so.
        fate = self._scope.state.fate(input_id)
        return fate is not None and fate.status == "cancelled"


def _at(at: datetime | None, after_s: float | None) -> int:
    """The time, in ms since 1970. Raises ValueError."""
    if (at is None) == (after_s is None):
        raise ValueError("give `at` or `after_s`, and not both")
    if at is not None and at.tzinfo is None:
        raise ValueError("`at` must say its time zone")
    at_ms = in_ms(after_s or 0) if at is None else int(at.timestamp() * 1000)
    if at_ms - now_ms() > AHEAD_S_MAX * 1000:
        raise ValueError(f"an input may be scheduled {AHEAD_S_MAX} s ahead at most")
    return max(at_ms, 0)
