"""What a run asks of others has ids that a new attempt of the run makes again, so that it finds what was asked before."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import orjson


class CallIds:
    """Names the calls of one attempt: by what is asked, and how often the same has been asked before in this run.

    An agent that does the same things in the same order gets the same ids in every attempt; with a `key` of its own the
    order does not matter.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._asked: Counter[str] = Counter()

    def idempotency_key(self, session: str, name: str) -> str:
        """The same in every attempt of the run; `session` is the session's key. At most 40 characters."""
        said = f"{session}\0{self._run_id}\0{name}".encode()
        return f"key_{hashlib.blake2b(said, digest_size=18).hexdigest()}"

    def name(self, kind: str, what: Any, key: str | None = None) -> str:
        """At most 64 characters, of A-Z a-z 0-9 _ -."""
        said = key if key is not None else orjson.dumps(what, option=orjson.OPT_SORT_KEYS).decode()
        digest = hashlib.blake2b(f"{self._run_id}\0{kind}\0{said}".encode(), digest_size=12).hexdigest()
        count = self._asked[digest]
        self._asked[digest] += 1
        return f"{kind}_{digest}" if count == 0 else f"{kind}_{digest}_{count}"
