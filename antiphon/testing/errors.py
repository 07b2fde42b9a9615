"""What a test of an agent may meet."""

from __future__ import annotations

from broker.errors import AntiphonError


class AgentFailed(AntiphonError):
    """The run ended with an error. What the agent raised, if it did so in this process, is the `__cause__`."""

    def __init__(self, run_id: str, code: str, message: str) -> None:
        self.run_id = run_id
        self.code = code
        super().__init__(f"{run_id} ended with {code}: {message}")


class NothingCame(AntiphonError, TimeoutError):
    """What the test waited for has not come in time. The text says how the session stands."""
