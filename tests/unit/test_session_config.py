"""A session's config: what is refused, what is merged, and whose limits are whose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.session_config import (
    MAX_ROLES,
    ON_BUSY,
    RoleLimits,
    SessionConfig,
    config_to_wire,
    merged,
    problem_of,
    well_formed,
)
from tests.unit.strategies import json_values

GOOD: dict[str, Any] = {
    "onBusy": "interrupt",
    "coalesce": "latest",
    "maxQueue": 64,
    "approvalOnInput": "cancel",
    "whenUnwatched": "pause",
    "unwatchedGraceMs": 3_600_000,
    "pool": "gpu-1",
    "priority": "high",
    "roles": {"guest": {"modes": ["auto"], "maxQueue": 0, "cancel": False}, "lead": {"modes": None, "maxQueue": None}},
}
BAD: list[tuple[str, Any]] = [
    *(("onBusy", v) for v in ("never", None, 1, ["auto"])),
    *(("coalesce", v) for v in ("all", None, True)),
    *(("maxQueue", v) for v in (0, 65, -1, True, 1.5, "4", None)),
    *(("approvalOnInput", v) for v in ("approve", None, {})),
    *(("whenUnwatched", v) for v in ("sleep", None, [])),
    *(("unwatchedGraceMs", v) for v in (-1, 3_600_001, 0.5, False, None)),
    *(("pool", v) for v in ("", "a b", "x" * 65, 1, "a\n")),
    *(("priority", v) for v in ("urgent", None, 1, ["high"])),
    *(("roles", v) for v in (None, [], "guest", {"guest": None}, {"guest": []})),
    *(("roles", {"guest": {"modes": v}}) for v in ("auto", ["nap"], [["auto"]], [None], {})),
    *(("roles", {"guest": {"maxQueue": v}}) for v in (-1, 65, True, "1")),
    *(("roles", {"guest": {"cancel": v}}) for v in (None, 0, "no")),
    ("roles", {f"r{n}": {} for n in range(MAX_ROLES + 1)}),
]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_good_config_has_no_problem() -> None:
    assert problem_of(GOOD) is None
    assert problem_of({}) is None
    assert problem_of({"pool": None}) is None
    assert problem_of({"roles": {f"r{n}": {} for n in range(MAX_ROLES)}}) is None


def test_the_default_config_can_be_used() -> None:
    assert problem_of(config_to_wire(SessionConfig())) is None
    assert merged(SessionConfig(), {}) == SessionConfig()


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_field_is_named_and_not_merged(name: str, value: Any) -> None:
    wire = GOOD | {name: value}
    problem = problem_of(wire)
    assert problem is not None
    assert problem[0] == name
    expected = config_to_wire(merged(SessionConfig(), {field: value for field, value in GOOD.items() if field != name}))
    assert config_to_wire(merged(SessionConfig(), wire)) == expected, "the other fields are merged"


def test_an_unknown_field_is_refused_and_changes_nothing() -> None:
    problem = problem_of({"zoom": 1})
    assert problem is not None
    assert problem[0] == "zoom"
    assert merged(SessionConfig(), {"zoom": 1}) == SessionConfig()


@given(st.dictionaries(st.sampled_from([*GOOD, "zoom"]), json_values, max_size=4))
def test_what_is_merged_is_as_it_should_be(wire: dict[str, Any]) -> None:
    config = merged(SessionConfig(), wire)
    assert problem_of(config_to_wire(config)) is None
    assert merged(SessionConfig(), config_to_wire(config)) == config
    if problem_of(wire) is not None:
        assert config_to_wire(config) != wire


# --- what is merged --------------------------------------------------------------------------------------------------


def test_a_config_survives_a_round_trip() -> None:
    config = merged(SessionConfig(), GOOD)
    assert config == SessionConfig(
        *("interrupt", "latest", 64, "cancel", "pause", 3_600_000, "gpu-1"),
        {"guest": RoleLimits(("auto",), 0, False), "lead": RoleLimits()},
        "high",
    )
    assert merged(SessionConfig(), config_to_wire(config)) == config


def test_what_is_absent_stays() -> None:
    before = merged(SessionConfig(), GOOD)
    assert merged(before, {"maxQueue": 2}) == merged(SessionConfig(), GOOD | {"maxQueue": 2})
    assert merged(before, {"pool": None}).pool is None


def test_roles_are_replaced_as_a_whole() -> None:
    assert merged(merged(SessionConfig(), GOOD), {"roles": {"x": {}}}).roles == {"x": RoleLimits()}


# --- limits ----------------------------------------------------------------------------------------------------------

LIMITED = SessionConfig(
    max_queue=8,
    roles={
        "guest": RoleLimits(("enqueue",), 1, False),
        "trainee": RoleLimits(("enqueue", "auto"), 3, False),
        "lead": RoleLimits(),
        "mute": RoleLimits((), 0),
    },
)
WITH_REST = merged(LIMITED, {"roles": {"guest": {"maxQueue": 1}, "*": {"modes": ["reject"], "cancel": False}}})


def test_who_has_no_role_that_is_named_has_no_limits() -> None:
    for roles in ((), ("stranger",)):
        assert LIMITED.limits_of(roles) == ()
        assert all(LIMITED.allows_mode(roles, mode) for mode in ON_BUSY)
        assert LIMITED.allows_cancel(roles)
        assert LIMITED.queue_of(roles) == 8


def test_the_star_is_for_the_rest() -> None:
    for roles in ((), ("stranger",), ("*",)):
        assert WITH_REST.limits_of(roles) == (RoleLimits(("reject",), None, False),)
        assert not WITH_REST.allows_mode(roles, "auto")
        assert not WITH_REST.allows_cancel(roles)
        assert WITH_REST.queue_of(roles) == 8
    assert WITH_REST.limits_of(("guest", "stranger")) == (RoleLimits(max_queue=1),)


@pytest.mark.parametrize(
    ("roles", "modes", "queue", "cancel"),
    [
        (("guest",), {"enqueue"}, 1, False),
        (("guest", "trainee"), {"enqueue", "auto"}, 3, False),
        (("trainee", "guest", "stranger"), {"enqueue", "auto"}, 3, False),
        (("guest", "lead"), set(ON_BUSY), 8, True),
        (("mute",), set(), 0, True),
        (("mute", "guest"), {"enqueue"}, 1, True),
    ],
)
def test_what_one_role_allows_is_allowed(roles: tuple[str, ...], modes: set[str], queue: int, cancel: bool) -> None:
    assert {mode for mode in ON_BUSY if LIMITED.allows_mode(roles, mode)} == modes
    assert LIMITED.queue_of(roles) == queue
    assert LIMITED.allows_cancel(roles) == cancel


def test_fields_that_are_not_as_they_should_be_are_left_out_and_unknown_ones_are_not() -> None:
    wire = {"onBusy": "enqueue", "maxQueue": 4.0, "coalesce": "all", "roles": {"a": {"maxQueue": 1.0}}, "later": [1]}
    assert well_formed(wire) == {"onBusy": "enqueue", "later": [1]}
    assert merged(SessionConfig(), well_formed(wire)) == merged(SessionConfig(), wire)
