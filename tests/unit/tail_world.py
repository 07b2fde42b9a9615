"""A model of what a `Tail` lives in: a log, a live channel that loses and reorders, replicas that lag, and a driver.

The driver does what `broker.jetstream.tailing` does: one request at a time, an answer to a fetch is used only if the
tail still wants it, and whatever comes live goes to the tail at once, also while a request is on its way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.tail import STALE_READS_MAX, Delivery, LiveEntry, Need, Rewound, StoredEntry, Tail

DELTAS = "d.main"
SUBJECTS = ("r.in", "r.ev.main", DELTAS)
QUIET_STEPS_MAX = 20 * STALE_READS_MAX


@dataclass(frozen=True)
class Question:
    """A request on its way. `entries` is what the log (or a replica of it) held when it was answered."""

    need: Need
    after: int
    batch: int
    entries: tuple[StoredEntry, ...]
    early: bool = False
    """It went to a replica, for the leader did not answer."""


@dataclass
class World:
    """`log` is the truth; `delivered` is what the reader has, with every rewind carried out."""

    log: list[StoredEntry] = field(default_factory=list)
    sent: list[LiveEntry] = field(default_factory=list)
    in_flight: list[LiveEntry] = field(default_factory=list)
    delivered: list[StoredEntry] = field(default_factory=list)
    rewinds: list[Rewound] = field(default_factory=list)
    deliveries: int = 0
    last_seq: int = 0
    after: int = 0
    tail: Tail | None = None
    question: Question | None = None

    # --- the log and the live channel ----------------------------------------------------------------------------

    def write(self, subject: str, skip: int = 0) -> LiveEntry:
        """Stores an entry; `skip` sequences go to other sessions of the stream. It is republished if anybody listens."""
        self.last_seq = seq = self.last_seq + 1 + skip
        prev = max((e.seq for e in self.log if e.subject == subject), default=0)
        entry = StoredEntry(seq, subject, b"%d" % seq)
        self.log.append(entry)
        live = LiveEntry(entry, prev)
        if self.tail is not None:
            self.sent.append(live)
            self.in_flight.append(live)
        return live

    def join(self, tail: Tail, after: int) -> None:
        self.tail, self.after = tail, after

    def say(self, subject: str) -> None:
        """An entry that is heard at once, before all that is still on its way."""
        self.write(subject)
        self.arrive(-1)

    def mumble(self, subject: str) -> None:
        """An entry that is stored and never heard of live."""
        self.write(subject)
        self.lose(-1)

    def arrive(self, which: int) -> None:
        if self.in_flight:
            self._take(self._tail.on_live(self.in_flight.pop(which % len(self.in_flight))))

    def lose(self, which: int) -> None:
        if self.in_flight:
            self.in_flight.pop(which % len(self.in_flight))

    def arrive_again(self, which: int) -> None:
        """Something that was sent before, whether it arrived then or not."""
        if self.sent:
            self._take(self._tail.on_live(self.sent[which % len(self.sent)]))

    def expire(self, count: int) -> None:
        """The oldest deltas age out."""
        old = [e for e in self.log if e.subject == DELTAS][:count]
        self.log = [e for e in self.log if e not in old]

    def disturb(self) -> None:
        self._tail.disturbed()

    def prove(self) -> None:
        """A copy of the log says what is the last on each subject, up to the last entry that was delivered."""
        if not (self._tail.live and self.delivered):
            return
        until = self.delivered[-1].seq
        if not self._tail.lacks({e.subject: e.seq for e in self.log if e.seq <= until}):
            assert self.delivered == [e for e in self.expected if e.seq <= until]

    # --- the driver ----------------------------------------------------------------------------------------------

    def ask(self, lag: int = 0, batch: int = 4, *, deposed: bool = False) -> None:
        """Sends the request that the tail needs; a fetch may go to a replica that lacks the last `lag` entries.

        And so may the question for the head, if it goes to a leader that does not know yet that it is `deposed`.
        """
        tail = self._tail
        if self.question is None and tail.need is not Need.NOTHING:
            lag = lag if deposed or tail.need is Need.FETCH else 0
            self.question = Question(tail.need, tail.fetch_after, batch, tuple(self.log[: max(0, len(self.log) - lag)]))

    def ask_deposed(self, lag: int) -> None:
        self.ask(lag, deposed=True)

    def ask_early(self, lag: int, batch: int) -> None:
        """No leader answers: a replica is read, which may lack the last `lag` entries."""
        tail = self._tail
        if self.question is None and tail.need is Need.HEAD:
            held = tuple(self.log[: max(0, len(self.log) - lag)])
            self.question = Question(Need.FETCH, tail.fetch_after, batch, held, early=True)

    def answer(self) -> None:
        tail, question, self.question = self._tail, self.question, None
        if question is None:
            return
        if question.need is Need.HEAD:
            self._take(tail.on_head(question.entries[-1] if question.entries else None))
        elif question.early and tail.need is Need.HEAD and tail.fetch_after == question.after:
            self._take(tail.on_early([e for e in question.entries if e.seq > question.after][: question.batch]))
        elif not question.early and tail.need is Need.FETCH and tail.fetch_after == question.after:
            newer = [e for e in question.entries if e.seq > question.after]
            page = newer[: question.batch]
            self._take(tail.on_batch(page, end=len(page) == len(newer)))

    def come_to_rest(self) -> None:
        """Lets the driver work, with replicas that are up to date, until the tail needs nothing."""
        for _ in range(QUIET_STEPS_MAX):
            if self._tail.live and self.question is None:
                return
            self.ask()
            self.answer()
        raise AssertionError("the tail asks for ever")

    # --- the reader ----------------------------------------------------------------------------------------------

    @property
    def _tail(self) -> Tail:
        assert self.tail is not None
        return self.tail

    def _take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, Rewound):
                assert delivery.to >= self.after, "rewound to before the join"
                self.rewinds.append(delivery)
                self.delivered = [e for e in self.delivered if e.seq <= delivery.to]
                continue
            last = self.delivered[-1].seq if self.delivered else self.after
            assert delivery.seq > last, "delivered twice, or out of order"
            self.delivered.append(delivery)
            self.deliveries += 1

    @property
    def expected(self) -> list[StoredEntry]:
        return [e for e in self.log if e.seq > self.after]

    @property
    def missing(self) -> list[StoredEntry]:
        have = {e.seq: e for e in self.delivered}
        return [e for e in self.expected if have.get(e.seq) != e]
