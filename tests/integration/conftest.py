"""After all tests of the HTTP API: whatever it says it may answer has been answered in one of them.

The tests may have been shared out among processes, so this is told once all of them have ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.errors import ErrorCode
from gateway.http.declarations import JSON
from gateway.http.operations import OPERATIONS
from gateway.http.problems import CONFLICT, STATUS
from tests.support.http import SEEN

_MODULES = {f"test_http_{name}.py" for name in ("agui", "ai_sdk", "api", "attachments", "events", "refusals", "runs")}
_MODULES |= {"test_limits.py", "test_quotas.py"}
_NOT_HERE = {ErrorCode.INTERNAL, ErrorCode.SESSION_FULL}
"""A fault of the server is nothing that a test can ask for; a session of 50,000 inputs is for the tests of the fold."""
_OUTPUT = "http_answers"

_ran: set[str] = set()


def missing_answers() -> list[tuple[str, int, str]]:
    """Answers that are declared and that no test has had: operation, status, and code or media type."""
    wanted: set[tuple[str, int, str]] = set()
    for operation in OPERATIONS:
        for code in set(operation.codes()) - _NOT_HERE:
            wanted.add((operation.name, STATUS.get(code, CONFLICT), str(code)))
        for status, answer in operation.answers.items():
            wanted |= {(operation.name, status, media) for media in answer.also}
            if answer.schema is not None or not answer.also:
                wanted.add((operation.name, status, JSON if answer.schema is not None else ""))
    return sorted(wanted - {(name, status, str(code)) for name, status, code in SEEN})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _ran.add(Path(report.location[0]).name)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    SEEN.update(tuple(seen) for seen in getattr(node, "workeroutput", {}).get(_OUTPUT, ()))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = [(name, status, str(code)) for name, status, code in SEEN]
    elif exitstatus == 0 and _ran >= _MODULES and not session.config.option.keyword:
        missing = missing_answers()
        if missing:
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            reporter.write_line(f"\nERROR: no test has had these answers of the HTTP API: {missing}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
