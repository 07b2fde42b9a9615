"""Judges the history of a session: pure, from what clients sent, were told and saw, and what the log holds in the end.

What must hold:

* every acknowledged input is in the log, once; nothing acknowledged is taken back (`check_log`);
* nothing was written under an old fence after a newer claim (`check_log`);
* every run has one beginning and one end, and nothing waits (`check_log`);
* a call has one accepted result and an approval one decision, those that were acknowledged (`check_decisions`);
* what a client saw is a part of the log, in its order, with nothing missing, over all its subscriptions (`check_views`);
* every text is the same for each client, for the log folded by deltas, and folded by segments (`check_texts`).

The checker knows the log's rules by itself where they are short; only for the state at the end and the text of messages
it uses the broker's fold, beside one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.chaos.check_decisions import check_decisions
from tests.chaos.check_log import check_log
from tests.chaos.check_texts import check_texts
from tests.chaos.check_views import check_views
from tests.chaos.findings import Indexed, Violation
from tests.chaos.history import Record


def check(history: Iterable[Record]) -> list[Violation]:
    """All that is wrong with a history; nothing if it is good."""
    indexed = Indexed.of(history)
    return [
        *check_log(indexed),
        *check_decisions(indexed),
        *check_views(indexed),
        *check_texts(indexed),
    ]
