"""What an agent's author may meet. All are AntiphonErrors; unhandled, they end the run with `agent_error`."""

from __future__ import annotations

from broker.errors import AntiphonError, RunErrorCode


class RunEnded(AntiphonError):
    """The run has ended; nothing more can be said in it."""


class EventLoopBlocked(AntiphonError):
    """The agent has held up the worker's event loop for too long, and was interrupted where it stood."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"the agent has blocked the event loop for {seconds:.1f} s: use `await`, or `asyncio.to_thread` for what blocks"
        )


class ContentTooLarge(AntiphonError):
    """An event is larger than the log takes (256 KiB), or no JSON; nothing of it was stored. Unhandled, it ends the run."""


class AttachmentNotFound(AntiphonError):
    """The session has no such attachment (any more). `id` is which."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        super().__init__(f"the session has no attachment {id_!r}")


class AttachmentRefused(AntiphonError):
    """A file may not be attached: its name, its type, or no room. Nothing of it is stored."""


class TooManyCalls(AntiphonError):
    """The session has as many open calls, approvals or child runs as it may have."""


class ScheduleRefused(AntiphonError):
    """An input was not scheduled. `code` is schedule_full, session_full, session_closed or not_permitted (the
    worker is for some sessions alone).
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the input was not scheduled: {code}")


class ToolFailed(AntiphonError):
    """A tool gave no result. `code` is one of those of `tool.failed` (PROTOCOL, section 9)."""

    def __init__(self, tool: str, code: str, message: str = "") -> None:
        self.tool = tool
        self.code = code
        super().__init__(f"{tool}: {code}" + (f": {message}" if message else ""))


class StepFailed(AntiphonError):
    """What a recorded step does has failed. `error` is the type of what it raised, the same in every attempt of the run.

    In the attempt that it failed in, `__cause__` is what it raised.
    """

    def __init__(self, step: str, error: str) -> None:
        self.step = step
        self.error = error
        super().__init__(f"the step {step!r} failed: {error}")


class StepChanged(AntiphonError):
    """A recorded step is not the one that is asked for now: an earlier attempt called it with other arguments.

    The agent does not do the same in every attempt, or its code has changed in between. What it did is left as it is.
    Give the step a `key` of its own if its arguments may differ.
    """

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(
            f"the step {step!r} was recorded with other arguments; give it a key if they may differ between attempts"
        )


class TooManySteps(AntiphonError):
    """The run has as many recorded steps as it may have; nothing was done."""


class ArgumentsInvalid(AntiphonError):
    """The arguments are not as the tool's schema says; nothing was asked. `path` is where."""

    def __init__(self, tool: str, path: str, message: str) -> None:
        self.tool = tool
        self.path = path
        super().__init__(f"{tool}: {path or 'the arguments'}: {message}")


class NoAnswer(AntiphonError):
    """A question was not answered. `code` is declined, expired or cancelled."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the question was not answered: {code}")


class NobodyCame(AntiphonError):
    """Nobody takes the lane over; the agent still has it. `code` is expired, or handoff_waits (another one does)."""

    def __init__(self, to: str, code: str) -> None:
        self.to = to
        self.code = code
        super().__init__(f"nobody with the role {to!r} takes over: {code}")


class ModelFailed(AntiphonError):
    """A model, or a service that stands for an agent, gave no answer. Unhandled, it ends the run with its `code`.

    The code is `model_rate_limited`, `model_unavailable` (it cannot be reached, fails, or breaks off) or `model_refused`
    (asking again would not help: a wrong key, a request that it does not take, an answer that it withholds). People see
    the message, so it holds nothing of what was said; `status` is the HTTP status, if there was one.
    """

    def __init__(self, code: RunErrorCode, message: str, *, status: int | None = None) -> None:
        self.code = code
        self.status = status
        super().__init__(message)


class TooManyRounds(AntiphonError):
    """A model has been asked as often as it may be in one run, and still wants to call tools."""


class AskFailed(AntiphonError):
    """Another agent gave no answer.

    `code` is bad_name, ask_cycle, ask_depth, ask_fan_out, timeout, cancelled, refused or error (its run failed).
    """

    def __init__(self, agent: str, code: str) -> None:
        self.agent = agent
        self.code = code
        super().__init__(f"{agent} gave no answer: {code}")
