"""All that the API says it may answer has been answered, by the tests before this one."""

from __future__ import annotations

import pytest

from broker.errors import ErrorCode
from gateway.http.declarations import JSON
from gateway.http.operations import OPERATIONS
from gateway.http.problems import CONFLICT, STATUS
from tests.support.http import SEEN

NOT_HERE = {ErrorCode.INTERNAL, ErrorCode.SESSION_FULL}
"""A fault of the server is nothing that a test can ask for; a session of 50,000 inputs is for the tests of the fold."""
MODULES = {f"test_http_{name}.py" for name in ("api", "events", "refusals", "runs")}


def test_every_answer_has_been_given(request: pytest.FixtureRequest) -> None:
    collected = {item.path.name for item in request.session.items}
    if not collected >= MODULES or request.config.option.keyword:
        pytest.skip("tells something only when all of tests/integration/test_http_*.py has run before it")
    wanted: set[tuple[str, int, str]] = set()
    for operation in OPERATIONS:
        for code in set(operation.codes()) - NOT_HERE:
            wanted.add((operation.name, STATUS.get(code, CONFLICT), str(code)))
        for status, answer in operation.answers.items():
            wanted |= {(operation.name, status, media) for media in answer.also}
            if answer.schema is not None or not answer.also:
                wanted.add((operation.name, status, JSON if answer.schema is not None else ""))
    seen = {(name, status, str(code)) for name, status, code in SEEN}
    missing = sorted(wanted - seen)
    assert not missing, str(missing)
