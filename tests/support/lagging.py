"""A log whose reads come from a replica that lags behind the leader, as any read of a cluster may."""

from __future__ import annotations

from broker.jetstream.log import JetStreamLog
from broker.subjects import SessionSubjects
from broker.tail import StoredEntry

STALE_READS = 3


class LaggingLog(JetStreamLog):
    """The first `STALE_READS` reads that would see an entry do not: the replica gets it a moment later."""

    async def _page(self, subjects: SessionSubjects, subject: str, after: int) -> tuple[list[StoredEntry], bool]:
        entries, end = await super()._page(subjects, subject, after)
        stale = self.__dict__.setdefault("stale", {})
        for i, entry in enumerate(entries):
            if stale.setdefault(entry.seq, STALE_READS) > 0:
                stale[entry.seq] -= 1
                return entries[:i], True
        return entries, end
