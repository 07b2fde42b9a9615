"""The answer to one input: just its text, as it streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from .errors import AntiphonError, RunFailed
from .following import Following
from .receipts import Receipt
from .rules.names import RUN_PREFIX
from .steering import HistoryPage

PARAGRAPH: Final = "\n\n"
"""Put between the messages of an answer (an agent may say something before and after a tool's call)."""

_PAGE: Final = 200
_GOOD: Final = frozenset({"success", "no_run", "unknown"})


class Asked(Protocol):
    """What an answer needs of its session."""

    @property
    def error(self) -> AntiphonError | None:
        """Why the session cannot be read, so that nothing more will be learned."""

    async def send(self, content: str, input_id: str | None = None, mode: str | None = None) -> Receipt:
        """Send a message."""

    async def cancel_run(self, run_id: str, mode: str | None = None) -> str:
        """Stop a run."""

    def history_pages(self, before: int | None = None, limit: int = 50) -> AsyncIterator[HistoryPage]:
        """The pages of older messages, the newest first."""

    def waiting(self) -> AbstractContextManager[None]:
        """While inside, somebody waits for an entry: the socket must be read."""


class Answer:
    """What an agent answers to one input; made by `Session.ask()`.

    ::

        async for text in session.ask("What is a cursor?"):
            print(text, end="", flush=True)

    The input is sent when the iteration begins (or by `sent()`), once, however often it is iterated;
    each iteration gives the whole answer. Several messages of the run are parted by an empty line. What
    is said by others, before the input was applied, and by agents that the agent asks, is left out.
    An iteration raises what `Session.send` does; `InputNotApplied` if the input will never be
    applied; `RunFailed` if the run is cancelled or fails; and the session's error if it cannot be
    read. Leaving the loop, or cancelling a wait, stops nothing but the reading: `cancel()` stops the
    run. If a human has the lane, the answer is empty: what they say is in `Session.messages`.
    """

    def __init__(self, session: Asked, following: Following, content: str, input_id: str, mode: str | None) -> None:
        self._session = session
        self._following = following
        self._content = content
        self._mode = mode
        self._receipt: Receipt | None = None
        self.input_id = input_id

    @property
    def run_id(self) -> str:
        """The run that answers; known at once, as in `Receipt.run_id`."""
        return RUN_PREFIX + self.input_id if self._receipt is None else self._receipt.run_id

    @property
    def receipt(self) -> Receipt | None:
        """The input's receipt, once it is stored; None before."""
        return self._receipt

    async def sent(self) -> Receipt:
        """Send the input, if it is not sent yet; returns once it is stored."""
        if self._receipt is None:
            self._receipt = await self._session.send(self._content, self.input_id, self._mode)
        return self._receipt

    async def cancel(self, mode: str | None = None) -> str:
        """Stop the run, also before it starts, as `Session.cancel_run` does."""
        return await self._session.cancel_run(self.run_id, mode)

    async def text(self) -> str:
        """Wait for the whole answer."""
        return "".join([piece async for piece in self])

    async def __aiter__(self) -> AsyncIterator[str]:
        receipt = await self.sent()
        given: dict[str, int] = {}
        said: list[str] = []
        while True:
            pieces = self._new(receipt, given)
            for piece in pieces:
                said.append(piece)
                yield piece
            if pieces:
                continue  # whoever took them may have waited meanwhile
            if receipt.outcome is not None:
                break
            if self._session.error is not None:
                raise self._session.error
            with self._session.waiting():
                await self._following.bell.wait()
        async for piece in self._rest(receipt, "".join(said)):
            said.append(piece)
            yield piece
        await self._judge(receipt, "".join(said))

    def _new(self, receipt: Receipt, given: dict[str, int]) -> list[str]:
        """What has been added; a message is begun when the one before is whole."""
        found = []
        spoken = self._following.fold.transcript.spoken(receipt.run_id, receipt.message_id, given)
        for each in spoken:
            if each.text:
                found.append(PARAGRAPH + each.text if given and each.message_id not in given else each.text)
                given[each.message_id] = given.get(each.message_id, 0) + len(each.text)
            if not each.done:
                break
        return found

    async def _rest(self, receipt: Receipt, said: str) -> AsyncIterator[str]:
        """What the transcript has not shown, because reading began after the input, or anew."""
        if self._following.fold.transcript.get(receipt.message_id) is not None or not _may_have_spoken(receipt):
            return
        text = await self._from_history(receipt.run_id, receipt.message_id)
        if text.startswith(said) and len(text) > len(said):
            yield text[len(said) :]

    async def _from_history(self, run_id: str, after: str) -> str:
        found: list[str] = []
        async for page in self._session.history_pages(None, _PAGE):
            ids = [message.id for message in page.messages]
            start = ids.index(after) if after in ids else 0
            of_run = [each for each in page.messages[start:] if each.run == run_id and each.role == "assistant"]
            found[:0] = [message.text for message in of_run if message.text]
            if after in ids:
                break
        return PARAGRAPH.join(found)

    async def _judge(self, receipt: Receipt, said: str) -> None:
        await receipt.applied()  # raises, if it never was
        outcome = await receipt.finished()
        if outcome.kind not in _GOOD:
            code = outcome.code or outcome.reason or outcome.kind
            raise RunFailed(outcome.kind, code, outcome.message or "", said)


def _may_have_spoken(receipt: Receipt) -> bool:
    return receipt.outcome is not None and receipt.outcome.kind != "no_run" and receipt.status == "ended"
