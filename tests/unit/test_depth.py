"""How deeply JSON may be nested: exactly so deeply, whatever else is in it."""

from __future__ import annotations

import orjson
import pytest

from broker.depth import SENT_DEPTH_MAX, STORED_DEPTH_MAX, is_deeper


def nested(depth: int, opens: str = "[", closes: str = "]") -> str:
    return opens * depth + "1" + closes * depth


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}"), ('[0,"[",', "]")])
@pytest.mark.parametrize("limit", [SENT_DEPTH_MAX, STORED_DEPTH_MAX])
def test_the_limit_is_exact(limit: int, opens: str, closes: str) -> None:
    for depth, deeper in ((limit - 1, False), (limit, False), (limit + 1, True), (1_000, True)):
        text = nested(depth, opens, closes)
        value = orjson.loads(text)
        assert is_deeper(value, text, limit) is is_deeper(value, text.encode(), limit) is deeper


def test_breadth_is_no_depth() -> None:
    text = "[" + ",".join(["[[1]]"] * 10_000) + "]"
    assert not is_deeper(orjson.loads(text), text, 3)
    assert is_deeper(orjson.loads(text), text, 2)


def test_brackets_in_text_are_none() -> None:
    text = orjson.dumps(["[" * 10_000])
    assert not is_deeper(orjson.loads(text), text, SENT_DEPTH_MAX)


def test_what_is_sent_fits_into_an_entry_and_that_into_what_is_written() -> None:
    """A value with the entry around it, and a state of such values with a snapshot around it."""
    assert SENT_DEPTH_MAX + 8 <= STORED_DEPTH_MAX
    orjson.dumps({"op": {"state": [{"args": orjson.loads(nested(STORED_DEPTH_MAX))}]}})
