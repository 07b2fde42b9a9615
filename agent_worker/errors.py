"""What an agent's author may meet. All are AntiphonErrors; unhandled, they end the run with `agent_error`."""

from __future__ import annotations

from broker.errors import AntiphonError


class RunEnded(AntiphonError):
    """The run has ended; nothing more can be said in it."""


class ContentTooLarge(AntiphonError):
    """An event is larger than the log takes (256 KiB), or no JSON; nothing of it was stored. Unhandled, it ends the run."""


class TooManyCalls(AntiphonError):
    """The session has as many open calls, approvals or child runs as it may have."""


class ToolFailed(AntiphonError):
    """A tool gave no result. `code` is one of those of `tool.failed` (PROTOCOL, section 9)."""

    def __init__(self, tool: str, code: str, message: str = "") -> None:
        self.tool = tool
        self.code = code
        super().__init__(f"{tool}: {code}" + (f": {message}" if message else ""))


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


class AskFailed(AntiphonError):
    """Another agent gave no answer.

    `code` is bad_name, ask_cycle, ask_depth, ask_fan_out, timeout, cancelled, refused or error (its run failed).
    """

    def __init__(self, agent: str, code: str) -> None:
        self.agent = agent
        self.code = code
        super().__init__(f"{agent} gave no answer: {code}")
