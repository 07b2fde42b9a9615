"""The facade is complete: all that the asyncio client offers is there, with the same names, parameters and results."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints
from unittest.mock import create_autospec

import pytest

import antiphon_client
from antiphon_client import answers, client, hosting, outbox, receipts, session, sync
from antiphon_client._host import Host
from antiphon_client.answers import Asked
from antiphon_client.buffer import EventSource

PAIRS = [
    pytest.param(client.Client, sync.Client, id="Client"),
    pytest.param(session.Session, sync.Session, id="Session"),
    pytest.param(receipts.Receipt, sync.Receipt, id="Receipt"),
    pytest.param(outbox.Submission, sync.Submission, id="Submission"),
    pytest.param(answers.Answer, sync.Answer, id="Answer"),
]

INSIDE = {
    # what a session needs of its client, an iteration of its session: called by the package alone
    *(name for name in vars(Host) if not name.startswith("_")),
    *(name for name in vars(EventSource) if not name.startswith("_")),
    *("connected", "disconnected", "accept", "fail", "forget", "waiting", "save_at", "settle", "stands_for", "gave"),
} - {"settings", "failure"}
OFFERED = {"Client": {"connected", "welcome"}}
"""What is called so inside, and is for everybody in this class."""

ADDED = {
    "Client": {"open", "close", "__enter__", "__exit__"},  # an asyncio client is only entered and left
    "Answer": {"pieces"},  # iterating has no place for a time-out
}


def surface(cls: type) -> set[str]:
    names = {name for name in dir(cls) if not name.startswith("_")}
    names |= {name for name in getattr(cls, "__annotations__", {}) if not name.startswith("_")}
    found = inspect.getsource(cls.__init__)
    names |= set(re.findall(r"^ +self\.([a-z]\w*)(?::[^=]+)? = ", found, re.MULTILINE))
    return {name for name in names if name not in INSIDE or name in OFFERED.get(cls.__name__, set())}


def parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def hints(function: Any) -> dict[str, Any]:
    return get_type_hints(function, {**vars(hosting), **vars(antiphon_client), **function.__globals__})


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_nothing_is_missing_and_nothing_is_added(asynchronous: type, blocking: type) -> None:
    added = ADDED.get(blocking.__name__, set())
    assert surface(blocking) - added == surface(asynchronous)
    assert len(surface(asynchronous)) > 3


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_the_same_parameters(asynchronous: type, blocking: type) -> None:
    """And `timeout_s` where there is something to wait for."""
    seen = 0
    for name in surface(asynchronous):
        one, other = (inspect.getattr_static(cls, name, None) for cls in (asynchronous, blocking))
        if not inspect.isfunction(one):
            assert not inspect.isfunction(other), name
            continue
        assert inspect.isfunction(other), name
        waits = inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) or name in ("events", "sessions")
        ours = [p for p in parameters(other) if p.name != "timeout_s"]
        same = [(p.name, p.kind, p.default) for p in parameters(one)]
        assert [(p.name, p.kind, p.default) for p in ours] == same, name
        timeouts = [(p.kind, p.default) for p in parameters(other) if p.name == "timeout_s"]
        assert timeouts == ([(inspect.Parameter.KEYWORD_ONLY, None)] if waits else []), name
        seen += 1
    assert seen > 0


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_the_same_types(asynchronous: type, blocking: type) -> None:
    """Parameters are the same; results are, or their counterparts."""
    counterparts = {pair.values[0]: pair.values[1] for pair in PAIRS}
    for name in surface(asynchronous):
        one, other = (inspect.getattr_static(cls, name, None) for cls in (asynchronous, blocking))
        if isinstance(one, property):
            one, other = one.fget, getattr(other, "fget", None)
        if not inspect.isfunction(one) or name in ("changes", "events"):
            continue
        theirs, ours = hints(one), hints(other)
        ours.pop("timeout_s", None)
        result, ours_result = theirs.pop("return"), ours.pop("return")
        assert theirs == ours, name
        plain, blocked = (str(each).rsplit("[", 1) for each in (result, ours_result))
        if "AsyncIterator" in str(result):
            assert "Iteration" in str(ours_result), name
            assert plain[-1] == blocked[-1], name
        else:
            args = [counterparts.get(each, each) for each in getattr(result, "__args__", (result,))]
            assert list(getattr(ours_result, "__args__", (ours_result,))) == args, name


class _Portal:
    """Waits here and now; notes the time-outs."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    def wait(self, work: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> Any:
        self.timeouts.append(timeout_s)
        return asyncio.run(work)

    def read(self, look: Callable[[], Any]) -> Any:
        return look()

    def post(self, act: Callable[[], object]) -> None:
        act()


def stand_in(asynchronous: type, blocking: type) -> tuple[Any, Any, _Portal]:
    """A facade's object, what it stands for (a mock of that class), and the portal between them."""
    inner, portal = create_autospec(asynchronous, instance=True), _Portal()
    inner.cursor = None
    if blocking is sync.Client:
        made: Any = sync.Client("http://localhost", "t")
        made._inner, made._portal = inner, portal
    elif blocking is sync.Session:
        made = sync.Session(sync.Client("http://localhost", "t"), portal, inner)  # type: ignore[arg-type]
    else:
        made = blocking(portal, inner)
    return made, inner, portal


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_each_call_is_passed_on_as_it_is(asynchronous: type, blocking: type) -> None:
    """To the method of the same name, every argument in its place, and the time-out to the wait."""
    passed = 0
    for name in surface(asynchronous):
        one = inspect.getattr_static(asynchronous, name, None)
        if not inspect.iscoroutinefunction(one):
            continue
        made, inner, portal = stand_in(asynchronous, blocking)
        named = [p for p in parameters(one) if p.name != "self"]
        given = [f"a {p.name}" for p in named if p.kind is not p.KEYWORD_ONLY]
        by_name = {p.name: f"a {p.name}" for p in named if p.kind is p.KEYWORD_ONLY}
        getattr(made, name)(*given, **by_name, timeout_s=1.5)
        # an alias is called by the method's own name
        call = getattr(inner, one.__name__).await_args
        bound = inspect.signature(one).bind(inner, *call.args, **call.kwargs)
        assert (bound.args[1:], bound.kwargs) == (tuple(given), by_name), name
        assert portal.timeouts == [1.5], name
        passed += 1
    assert passed > 0


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_each_property_is_that_of_the_same_name(asynchronous: type, blocking: type) -> None:
    wrapped = {pair.values[1] for pair in PAIRS}
    for name in surface(asynchronous) - {"cursor"}:  # the facade has its own
        if not isinstance(inspect.getattr_static(asynchronous, name, None), property):
            continue
        made, inner, _ = stand_in(asynchronous, blocking)
        found = getattr(made, name)
        expected = inner.view.state if (blocking, name) == (sync.Session, "state") else getattr(inner, name)
        assert (found._inner if type(found) in wrapped else found) is expected, name


def test_constructors_are_the_same() -> None:
    one, other = parameters(client.Client.__init__), parameters(sync.Client.__init__)
    assert [p for p in other if p.name != "timeout_s"] == one


def test_the_protocols_are_those_of_the_session() -> None:
    """The names that are left out above are really names of the package's own."""
    for protocol in (Host, EventSource, Asked):
        for name in vars(protocol):
            if not name.startswith("_"):
                assert hasattr(client.Client, name) or hasattr(session.Session, name), name


def test_what_is_exported() -> None:
    assert sync.__all__ == sorted(sync.__all__)
    for name in sync.__all__:
        assert hasattr(sync, name)
    assert set(antiphon_client.__all__) == {
        name
        for name, value in vars(antiphon_client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
