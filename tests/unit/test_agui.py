"""What a client of AG-UI asks for: what is new in it, what it decides, what is passed on to it."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import ErrorCode, Refused
from broker.events import Participant
from broker.state import Approval, Call, SessionState, Vote
from gateway.agui.content import agent_metadata, attached, text_of, user_content
from gateway.agui.events import passed_on
from gateway.agui.interrupts import Page, decision, interrupt, waiting_for
from gateway.agui.messages import in_place, lacks, older_than
from gateway.agui.request import check_history, fresh_messages, result_of
from gateway.agui.stream import usage_of
from gateway.http.problems import Problem

Json = dict[str, Any]


def user(id_: str, content: Any = None) -> Json:
    return {"id": id_, "role": "user", "content": id_ if content is None else content}


def agent(id_: str) -> Json:
    return {"id": id_, "role": "assistant", "content": id_}


def approval(*options: str, kind: str = "approval", **more: Any) -> Approval:
    return Approval("a", "main", "run_1", kind, 1, "Go on?", options, "reject_once", **more)


def test_messages_at_the_end_are_new() -> None:
    known = {"a", "b"}.__contains__
    assert fresh_messages([user("a"), agent("x"), user("c"), user("d")], known, "s") == [user("c"), user("d")]
    assert fresh_messages([{"id": "s", "role": "system", "content": ""}, user("b")], known, "s") == []
    for messages in ([user("c"), user("b")], [user("c"), agent("x")], [user("a"), user("c"), user("b")]):
        with pytest.raises(Problem, match="history_changed"):
            fresh_messages(messages, known, "s")
    for message in (user("no id"), user("x" * 65)):
        with pytest.raises(Refused, match="bad_name"):
            fresh_messages([message], known, "s")
    for content in ("", [], [{"type": "text", "text": ""}], {"a": 1}):
        with pytest.raises(Refused) as refused:
            fresh_messages([user("c", content)], known, "s")
        assert refused.value.code is ErrorCode.BAD_COMMAND


@pytest.mark.parametrize(
    "source",
    [
        None,
        5,
        {"type": "file"},
        {"type": "file", "value": "f"},
        {"type": "file", "value": "f", "provider": "openai"},
        {"type": "file", "value": "a/b", "provider": "antiphon"},
        {"type": "url", "value": "https://example.com/v1/sessions/s/attachments/f"},
        {"type": "url", "value": "/v1/sessions/other/attachments/f"},
        {"type": "url", "value": "/v1/sessions/s/attachments/f/../g"},
        {"type": "data", "value": "AAAA", "mimeType": "image/png"},
    ],
)
def test_what_is_no_attachment_of_the_session_is_to_be_uploaded_first(source: Any) -> None:
    with pytest.raises(Problem, match=r"not_supported.*'image'.*upload") as problem:
        fresh_messages([user("c", [{"type": "text", "text": "a"}, {"type": "image", "source": source}])], _nothing, "s")
    assert problem.value.status == 422


def _nothing(_: str) -> bool:
    return False


REFERENCE = {"id": "f", "name": "a.png", "mediaType": "image/png", "size": 3, "sha256": "0" * 64}


@pytest.mark.parametrize("modern", [True, False])
def test_files_go_to_clients_and_come_back(modern: bool) -> None:
    shown = user("a", user_content("look", [REFERENCE], "s", modern=modern))
    assert attached(shown, "s") == {"f"}
    assert attached(shown, "other") == ({"f"} if modern else set())
    assert text_of(shown) == "look"
    assert fresh_messages([shown], _nothing, "s") == [shown]
    files_alone = user("a", user_content("", [REFERENCE], "s", modern=modern))
    assert fresh_messages([files_alone], _nothing, "s") == [files_alone]
    assert user_content("look", [], "s", modern=modern) == "look"


def test_0_0_59_is_told_where_a_file_is() -> None:
    [part] = user_content("", [REFERENCE], "s", modern=False)
    assert isinstance(part, dict)
    assert part["source"] == {"type": "url", "value": "/v1/sessions/s/attachments/f", "mimeType": "image/png"}


@pytest.mark.parametrize("about", [None, 5, {"antiphon": 5}, {"antiphon": {"attachments": 5}}, {"other": {}}])
def test_metadata_of_a_clients_own_is_nobodys_attachment(about: Any) -> None:
    assert attached(agent("x") | {"metadata": about}, "s") == set()


def test_a_history_that_was_changed_is_refused() -> None:
    check_history([user("a"), user("new")], [user("a")], "s")
    shown = user("b", user_content("b", [REFERENCE], "s", modern=True))
    as_bytes = [{"type": "text", "text": "b"}, {"type": "image", "source": {"type": "data", "value": "AA"}}]
    for known in ("b", shown["content"], as_bytes, user_content("b", [REFERENCE], "s", modern=False)):
        check_history([user("b", known)], [shown], "s")
    other = user_content("b", [REFERENCE | {"id": "g"}], "s", modern=True)
    for message in (user("a", "other"), user("b", "other"), user("b", other)):
        with pytest.raises(Problem, match="history_changed"):
            check_history([message], [user("a"), shown], "s")


def test_who_lacks_something_is_given_all_in_order() -> None:
    called = {"id": "c", "role": "assistant", "toolCalls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    shown = [user("a"), called, {"id": "r", "role": "tool", "toolCallId": "c", "content": "1"}, agent("b")]
    reasoning = {"id": "t", "role": "reasoning", "content": "hm"}
    assert not lacks(shown, [*shown, reasoning], "s")
    assert lacks([*shown, reasoning | {"content": ""}], [*shown, reasoning], "s")
    assert all(lacks(shown[:n] + shown[n + 1 :], shown, "s") for n in range(len(shown)))
    with_file = user("a", user_content("a", [REFERENCE], "s", modern=True))
    assert lacks([user("a")], [with_file], "s")
    assert not lacks([with_file], [user("a")], "s")
    given = agent("b") | {"metadata": agent_metadata([REFERENCE])}
    assert lacks([agent("b")], [given], "s")
    assert not lacks([given], [given], "s")
    assert in_place([user("a")], shown) is None
    assert in_place([user("a"), agent("b")], shown) == [user("a")]
    assert in_place([agent("b")], shown) == []
    assert older_than([user("old"), {"id": "s", "role": "system"}, user("a"), user("new")], shown) == [user("old")]
    assert older_than([user("new")], shown) == []
    assert text_of(user("a", [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}])) == "x\ny"


@pytest.mark.parametrize(
    ("options", "status", "payload", "decided"),
    [
        (("allow_once", "reject_once"), "resolved", True, ("allow_once", None)),
        (("allow_once", "reject_once"), "resolved", {"approved": False}, ("reject_once", None)),
        (("allow_always", "reject_once"), "resolved", True, ("allow_always", None)),
        (("allow_once",), "resolved", {"approved": True, "editedArgs": 1}, ("allow_once", 1)),
        (("allow_once",), "resolved", {"option": "allow_always"}, ("allow_always", None)),
        (("allow_once", "reject_always"), "cancelled", None, ("reject_always", None)),
        (("allow_once",), "resolved", "yes", None),
        (("allow_once",), "resolved", None, None),
    ],
)
def test_decisions(options: tuple[str, ...], status: str, payload: Any, decided: Any) -> None:
    assert decision(approval(*options), {"status": status, "payload": payload}) == decided


def test_questions_are_answered_or_declined() -> None:
    question = approval("answer", "decline", kind="question", response_schema={"type": "integer"})
    assert decision(question, {"status": "resolved", "payload": 0}) == ("answer", 0)
    assert decision(question, {"status": "cancelled"}) == ("decline", None)
    assert interrupt(question)["responseSchema"] == {"type": "integer"}


def test_who_is_asked() -> None:
    boss, other = Participant("user", "boss"), Participant("user", "other")
    asked = approval("allow_once", roles=("boss",), quorum=2, votes=(Vote(other, "allow_once", 2),))
    state = SessionState(approvals={"a": asked})

    def is_asked(page: Page) -> bool:
        return bool(waiting_for(state, page, 0).approvals)

    assert is_asked(Page("boss", ("boss",)))
    assert not is_asked(Page("boss"))
    assert not is_asked(Page("other", ("boss",)))
    assert not is_asked(Page(boss.id, ("boss",), approves=False))


def test_whose_page_executes_a_call() -> None:
    def waiting(now: int = 0, **more: Any) -> tuple[bool, int | None]:
        call = Call("c", "main", "run_1", "pick", "client", 1, "w", **more)
        found = waiting_for(SessionState(calls={"c": call}), Page("user-1", tools=frozenset({"pick"})), now)
        return bool(found.calls), found.next_at

    assert waiting() == (True, None)
    assert waiting(participant="user-1", any_after=50) == (True, 50)
    assert waiting(participant="user-2", any_after=50) == (False, 50)
    assert waiting(50, participant="user-2", any_after=50) == (True, None)
    assert waiting(participant="user-2") == (False, None)
    assert waiting(participant="user-1", device="d") == (False, None)
    assert waiting(status="resolved") == (False, None)


def test_results_are_json_text_or_errors() -> None:
    assert result_of({"content": '{"a":1}'}) == {"result": {"a": 1}}
    assert result_of({"content": "red"}) == {"result": "red"}
    assert result_of({"content": "red", "error": "no"}) == {"error": "no"}
    assert result_of({"content": [1]}) == {"result": [1]}


def test_patches_and_usage_are_passed_on_if_they_are_such() -> None:
    def passes(*delta: Any) -> bool:
        return passed_on({"type": "STATE_DELTA", "delta": list(delta)}) is not None

    assert passes({"op": "move", "from": "/a~1", "path": ""})
    for operation in ({"op": "add", "path": "/a"}, {"op": "copy", "path": "/a"}, {"op": "remove", "path": "a"}, 5):
        assert not passes(operation)
    assert passed_on({"type": "RUN_STARTED"}) is None
    assert usage_of([{"model": "m", "inputTokens": 3, "outputTokens": True}, 5]) == [{"model": "m", "inputTokens": 3}]
    assert usage_of(5) == []
