"""Receipts, submissions and answers, to be waited for."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon_client.answers import Answer as AsyncAnswer
from antiphon_client.changes import InputApplied, Outcome
from antiphon_client.outbox import Submission as AsyncSubmission
from antiphon_client.receipts import Receipt as AsyncReceipt

from ._wrapped import Iteration, Wrapped, one_by_one


class Receipt(Wrapped[AsyncReceipt]):
    """An input that is stored in the log; see `antiphon_client.Receipt`."""

    __slots__ = ()

    @property
    def seq(self) -> int | None:
        """The input's place in the log."""
        return self._inner.seq

    @property
    def duplicate(self) -> bool:
        """Whether this input id had been stored before."""
        return self._inner.duplicate

    @property
    def mode(self) -> str | None:
        """The mode that it got when it was stored; None if it did not wait."""
        return self._inner.mode

    @property
    def position(self) -> int | None:
        """The place in the queue that it got; None if it did not wait."""
        return self._inner.position

    @property
    def reason(self) -> str | None:
        """What it waited for besides its turn."""
        return self._inner.reason

    @property
    def at(self) -> int | None:
        """When it is sent (ms since 1970), if it is scheduled."""
        return self._inner.at

    @property
    def trace(self) -> Mapping[str, str]:
        """The headers of the input's place in its trace."""
        return self._inner.trace

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._inner.input_id

    @property
    def message_id(self) -> str:
        """The input's message."""
        return self._portal.read(lambda: self._inner.message_id)

    @property
    def run_id(self) -> str:
        """The run that the input starts, or went into."""
        return self._portal.read(lambda: self._inner.run_id)

    @property
    def status(self) -> str:
        """What has become of the input by now."""
        return self._portal.read(lambda: self._inner.status)

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None while that is not known."""
        return self._portal.read(lambda: self._inner.outcome)

    def applied(self, *, timeout_s: float | None = None) -> InputApplied:
        """Wait until the input has entered the transcript."""
        return self._portal.wait(self._inner.applied(), timeout_s)

    def finished(self, *, timeout_s: float | None = None) -> Outcome:
        """Wait until the run has ended; tells how."""
        return self._portal.wait(self._inner.finished(), timeout_s)

    def cancel(self, mode: str | None = None, *, timeout_s: float | None = None) -> str:
        """Stop the run."""
        return self._portal.wait(self._inner.cancel(mode), timeout_s)

    def __repr__(self) -> str:
        return repr(self._inner)


class Submission(Wrapped[AsyncSubmission]):
    """A message in the outbox; see `antiphon_client.Submission`."""

    __slots__ = ()

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._inner.input_id

    @property
    def run_id(self) -> str:
        """The run that the input starts."""
        return self._inner.run_id

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, once the message is stored; None before."""
        found = self._portal.read(lambda: self._inner.receipt)
        return None if found is None else Receipt(self._portal, found)

    def stored(self, *, timeout_s: float | None = None) -> Receipt:
        """Wait until the message is stored."""
        return Receipt(self._portal, self._portal.wait(self._inner.stored(), timeout_s))


class Answer(Wrapped[AsyncAnswer]):
    """What an agent answers to one input: iterate for its text as it streams; see `antiphon_client.Answer`."""

    __slots__ = ()

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._inner.input_id

    @property
    def run_id(self) -> str:
        """The run that answers."""
        return self._portal.read(lambda: self._inner.run_id)

    @property
    def receipt(self) -> Receipt | None:
        """The input's receipt, once it is stored; None before."""
        found = self._portal.read(lambda: self._inner.receipt)
        return None if found is None else Receipt(self._portal, found)

    def __iter__(self) -> Iteration[str]:
        return self.pieces()

    def pieces(self, *, timeout_s: float | None = None) -> Iteration[str]:
        """Iterate over the text; `timeout_s` is the longest wait for a piece (None: however long it takes)."""
        return Iteration(self._portal, one_by_one(aiter(self._inner)), timeout_s)

    def sent(self, *, timeout_s: float | None = None) -> Receipt:
        """Send the input, if it is not sent yet; returns once it is stored."""
        return Receipt(self._portal, self._portal.wait(self._inner.sent(), timeout_s))

    def text(self, *, timeout_s: float | None = None) -> str:
        """Wait for the whole answer."""
        return self._portal.wait(self._inner.text(), timeout_s)

    def cancel(self, mode: str | None = None, *, timeout_s: float | None = None) -> str:
        """Stop the run, also before it starts."""
        return self._portal.wait(self._inner.cancel(mode), timeout_s)
